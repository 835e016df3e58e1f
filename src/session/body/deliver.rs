//! Delivers a body that has been judged, with the fields that tell of it.

use super::{LARGE_BUFFER, Last, Outlet, Relayed};
use crate::backend::Conversation;
use crate::session::machine::Moved;
use crate::smtp::dot::Encoder;
use crate::smtp::header::{Editor, Edits};
use crate::spool::Body;

/// Sends what is kept after the backend's 354, `trace` before it, and awaits
/// the reply. A body that cannot be read to its end breaks the backend's
/// connection: it must never see the end of half a message.
pub(in crate::session) async fn deliver(
    backend: &mut Option<Conversation>,
    body: &Body,
    trace: &[u8],
    edits: Edits,
) -> Relayed {
    let mut outlet = Outlet::to(backend);
    let mut editor = Editor::new(trace, edits);
    let mut encoder = Encoder::new();
    let mut reader = body.reader();
    let mut content = Vec::new();
    let octets = body.len();
    loop {
        match reader.next().await {
            // What came before it was not the last, with which the final dot goes.
            Ok(Some(piece)) => {
                send(&mut outlet, &mut encoder, &mut content).await;
                editor.edit(&piece, &mut content);
            }
            Ok(None) => break,
            Err(error) => {
                tracing::error!(%error, "a message that was kept cannot be read again");
                outlet.close(Moved::Lost);
                return Relayed {
                    moved: Moved::Lost,
                    octets,
                };
            }
        }
        if let Outlet::Closed(_) = outlet {
            break;
        }
    }
    if let Outlet::Open(_) = outlet {
        editor.finish(&mut content);
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

/// Sends content a block at a time, and keeps no room that only a long header
/// section or the body of a milter took: the backend may take minutes to answer.
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
