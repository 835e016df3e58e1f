//! Delivers a body that has been judged, with the fields that tell of it.

use std::io;

use super::{LARGE_BUFFER, Last, Outlet, Relayed};
use crate::backend::Conversation;
use crate::session::machine::Moved;
use crate::session::message::Plan;
use crate::smtp::dot::Encoder;
use crate::smtp::header::Editor;
use crate::spool::{Body, Reader};

/// Sends what is kept after the backend's 354, `trace` before it, and awaits
/// the reply. A body that cannot be read to its end breaks the backend's
/// connection: it must never see the end of half a message.
pub(in crate::session) async fn deliver(
    backend: &mut Option<Conversation>,
    trace: &[u8],
    plan: Plan,
) -> Relayed {
    let mut outlet = Outlet::to(backend);
    let octets = plan.body.len();
    let mut message = Edited::new(trace, plan);
    let mut encoder = Encoder::new();
    let (mut content, mut more) = (Vec::new(), Vec::new());
    while let Outlet::Open(_) = outlet {
        match message.next(&mut more).await {
            Ok(true) if more.is_empty() => {}
            // What came before it was not the last, with which the final dot goes.
            Ok(true) => {
                send(&mut outlet, &mut encoder, &mut content).await;
                std::mem::swap(&mut content, &mut more);
            }
            Ok(false) => break,
            Err(error) => {
                tracing::error!(%error, "a message that was kept cannot be read again");
                outlet.close(Moved::Lost);
                return Relayed {
                    moved: Moved::Lost,
                    octets,
                };
            }
        }
    }
    if let Outlet::Open(_) = outlet {
        let rest = content.split_off(content.len().saturating_sub(LARGE_BUFFER));
        send(&mut outlet, &mut encoder, &mut content).await;
        let mut wire = Vec::new();
        encoder.encode(&rest, &mut wire);
        encoder.finish(&mut wire);
        outlet.listen_first().await;
        outlet.write(&wire).await;
    }
    Relayed {
        moved: outlet.outcome(Last::Yes).await,
        octets,
    }
}

/// The content of a message as it is delivered.
struct Edited {
    reader: Reader,
    stage: Stage,
}

enum Stage {
    /// The message passes the editor; a body waits to take the place of its own.
    Editing(Box<Editor>, Option<Body>),
    /// The header section has passed, and now that body does.
    NewBody,
    Over,
}

impl Edited {
    fn new(trace: &[u8], plan: Plan) -> Self {
        let editor = match plan.new_body {
            Some(_) => Editor::without_body(trace, plan.edits),
            None => Editor::new(trace, plan.edits),
        };
        Self {
            reader: plan.body.reader(),
            stage: Stage::Editing(Box::new(editor), plan.new_body),
        }
    }

    /// Appends what comes next to `content`, which may be nothing; `false` when
    /// all has been appended.
    async fn next(&mut self, content: &mut Vec<u8>) -> io::Result<bool> {
        if let Stage::Over = self.stage {
            return Ok(false);
        }
        let piece = self.reader.next().await?;
        let is_last = piece.is_none();
        match &mut self.stage {
            Stage::Editing(editor, new_body) => {
                match piece {
                    Some(piece) => editor.edit(&piece, content),
                    None => editor.finish(content),
                }
                if editor.has_dropped_body()
                    && let Some(body) = new_body.take()
                {
                    self.reader = body.reader();
                    self.stage = Stage::NewBody;
                } else if is_last {
                    self.stage = Stage::Over;
                }
            }
            Stage::NewBody => match piece {
                Some(piece) => content.extend_from_slice(&piece),
                None => self.stage = Stage::Over,
            },
            Stage::Over => {}
        }
        Ok(true)
    }
}

/// Sends content a block at a time, and keeps no room that only a long header
/// section took: the backend may take minutes to answer.
async fn send(outlet: &mut Outlet<'_>, encoder: &mut Encoder, content: &mut Vec<u8>) {
    let mut wire = Vec::new();
    for block in content.chunks(LARGE_BUFFER) {
        encoder.encode(block, &mut wire);
        outlet.listen_first().await;
        outlet.write(&wire).await;
        wire.clear();
    }
    if content.capacity() > LARGE_BUFFER {
        *content = Vec::new();
    }
    content.clear();
}
