//! What the machine does about bodies: DATA and BDAT, relayed as they arrive or
//! kept until they have been judged.

use crate::session::offer;
use crate::session::refusal::Refusal;
use crate::smtp::command::{Bdat, Command, Rcpt};
use crate::smtp::reply::Reply;

use super::answers::{Class, class, closing};
use super::{Answer, Bodies, Ending, Line, Machine, Moved, Pending, Phase, Spooled, Step, end};

/// A refused chunk larger than this many times `MAX_SIZE` is not read to its end.
const DISCARD_FACTOR: u64 = 2;

impl Machine {
    pub(super) fn data(&mut self, phase: Phase) -> Step {
        match phase {
            Phase::Mail(_, ref envelope) if !envelope.recipients.is_empty() => {
                match self.rules.bodies {
                    Bodies::Relayed => {
                        self.await_with(phase, Pending::Data, Step::Exchange(Command::Data))
                    }
                    Bodies::Judged => {
                        let go = Reply::new(354, None, "End data with <CRLF>.<CRLF>");
                        self.await_with(phase, Pending::Spool(None), Step::SpoolBody(go))
                    }
                }
            }
            // RFC 2920 3.1: no error where DATA was pipelined behind recipients
            // that were refused. The transaction ends, so that it is one only once.
            Phase::Mail(..) => {
                let answer = Answer::Refused(Refusal::Sequence("No recipient was taken"));
                self.clear(phase.without_transaction(), answer)
            }
            Phase::Failed(greeted, answer) => self.answer(Phase::Greeted(greeted), answer),
            Phase::Start | Phase::Greeted(_) | Phase::Chunks(..) => {
                self.refuse(phase, Refusal::Sequence("Say MAIL and RCPT first"))
            }
        }
    }

    /// RFC 3030 2: the octets of a refused chunk are read and thrown away.
    pub(super) fn bdat(&mut self, phase: Phase, bdat: Bdat) -> Step {
        if !offer::chunking(&self.rules) {
            return self.refuse(phase, Refusal::NotOffered("BDAT"));
        }
        let octets = match &phase {
            Phase::Mail(_, envelope) if !envelope.recipients.is_empty() => 0,
            Phase::Chunks(_, _, octets) => *octets,
            Phase::Failed(_, answer) => {
                let answer = for_chunk(answer);
                let phase = if bdat.last {
                    phase.without_transaction()
                } else {
                    phase
                };
                return self.discard(phase, bdat, answer);
            }
            // Pipelined behind recipients that were refused: see `data`.
            Phase::Mail(..) => {
                let answer = Answer::Refused(Refusal::Sequence("No recipient was taken"));
                return self.discard(phase, bdat, answer);
            }
            Phase::Start | Phase::Greeted(_) => {
                let refusal = Refusal::Sequence("Say MAIL and RCPT first");
                if let Some(ending) = self.count_error() {
                    return Step::End(ending);
                }
                return self.discard(phase, bdat, Answer::Refused(refusal));
            }
        };
        if self.rules.bodies == Bodies::Judged {
            if octets.saturating_add(bdat.size) > self.rules.max_size {
                return self.discard(phase, bdat, Answer::Refused(Refusal::TooLarge));
            }
            let pending = Pending::Spool(Some(bdat));
            return self.await_with(phase, pending, Step::SpoolChunk(bdat));
        }
        // The probe offered it; this very connection must too, or the octets of
        // the chunk would be commands to the backend.
        let takes_chunks = self
            .link
            .as_ref()
            .is_some_and(|link| link.keywords.contains("CHUNKING"));
        if !takes_chunks {
            return self.discard(phase, bdat, Answer::Refused(Refusal::BackendChanged));
        }
        if octets.saturating_add(bdat.size) > self.rules.max_size {
            return self.discard(phase, bdat, Answer::Refused(Refusal::TooLarge));
        }
        self.await_with(phase, Pending::Chunk(bdat), Step::RelayChunk(bdat))
    }

    fn discard(&mut self, phase: Phase, bdat: Bdat, answer: Answer) -> Step {
        if bdat.size > self.rules.max_size.saturating_mul(DISCARD_FACTOR) {
            return Step::End(Ending::Said(answer));
        }
        let pending = Pending::Discard(bdat, answer);
        self.await_with(phase, pending, Step::Discard(bdat.size))
    }

    pub(super) fn body_moved(&mut self, phase: Phase, moved: Moved) -> Step {
        let phase = phase.without_transaction();
        match moved {
            Moved::Answered(reply) => match class(&reply) {
                Class::Done => {
                    self.message_taken();
                    self.answer(phase, Answer::Backend(reply))
                }
                Class::Refused => self.answer(phase, Answer::Backend(reply)),
                Class::Closing => closing(reply),
                Class::More | Class::Nonsense => end(Refusal::BackendNonsense),
            },
            other => match self.broken(other) {
                Err(ending) => Step::End(ending),
                Ok(answer) => self.answer(phase, answer),
            },
        }
    }

    pub(super) fn spooled(&mut self, phase: Phase, bdat: Option<Bdat>, spooled: Spooled) -> Step {
        let more = bdat.filter(|bdat| !bdat.last);
        let refusal = match (spooled, more, phase) {
            (Spooled::Kept, None, phase) => {
                return self.await_with(phase, Pending::Weigh, Step::Weigh);
            }
            (Spooled::Kept, Some(bdat), Phase::Mail(greeted, envelope)) => {
                let phase = Phase::Chunks(greeted, envelope, bdat.size);
                return self.own(phase, 250, [2, 0, 0], &kept(bdat));
            }
            (Spooled::Kept, Some(bdat), Phase::Chunks(greeted, envelope, octets)) => {
                let octets = octets.saturating_add(bdat.size);
                let phase = Phase::Chunks(greeted, envelope, octets);
                return self.own(phase, 250, [2, 0, 0], &kept(bdat));
            }
            (Spooled::Kept, Some(_), _) => return end(Refusal::BackendNonsense),
            (Spooled::Offence(offence), _, phase) => (Refusal::Body(offence), phase),
            (Spooled::TooLarge, _, phase) => (Refusal::TooLarge, phase),
            (Spooled::NoRoom, _, phase) => (Refusal::NoRoom, phase),
            (Spooled::Endless, ..) => return end(Refusal::TooLarge),
            (Spooled::TooSlow, ..) => return end(Refusal::TooSlow),
            (Spooled::Gone, ..) => return Step::End(Ending::Gone),
            (Spooled::GoneFrom(offence), ..) => {
                return Step::End(Ending::Cut(Refusal::Body(offence)));
            }
        };
        let (refusal, phase) = refusal;
        if refusal.is_error()
            && let Some(ending) = self.count_error()
        {
            return Step::End(ending);
        }
        let answer = Answer::Refused(refusal);
        let phase = match more {
            Some(bdat) => after_chunk(phase, bdat, &answer),
            None => phase.without_transaction(),
        };
        self.clear(phase, answer)
    }

    pub(super) fn data_for_kept(&mut self, phase: Phase, line: Line) -> Step {
        let data = Step::Exchange(Command::Data);
        self.await_with(phase, Pending::DataForKept(line), data)
    }

    /// The backend hung up while the body was on its way to us or was judged
    /// (RFC 5321 4.5.3.2.7 lets it after five minutes): another connection is
    /// told of the envelope, and must take all of it.
    pub(super) fn mail_again(&mut self, phase: Phase) -> Step {
        let printed = match &phase {
            Phase::Mail(_, envelope) | Phase::Chunks(_, envelope, _) => {
                self.printable(&phase, &envelope.mail)
            }
            Phase::Start | Phase::Greeted(_) | Phase::Failed(..) => None,
        };
        match printed {
            Some(mail) => {
                let mail = Step::Exchange(Command::Mail(mail));
                self.await_with(phase, Pending::Again(0), mail)
            }
            None => self.refuse(phase.without_transaction(), Refusal::BackendChanged),
        }
    }

    pub(super) fn tell_again(&mut self, phase: Phase, told: usize) -> Step {
        let (Phase::Mail(_, envelope) | Phase::Chunks(_, envelope, _)) = &phase else {
            return end(Refusal::BackendNonsense);
        };
        let mut recipients = envelope.recipients.iter().zip(&envelope.parameters);
        let Some((to, parameters)) = recipients.nth(told) else {
            return self.data_for_kept(phase, Line::Fresh);
        };
        let rcpt = Rcpt {
            to: to.clone(),
            parameters: parameters.clone(),
        };
        match self.rcpt_printable(&rcpt) {
            Some(rcpt) => {
                let rcpt = Step::Exchange(Command::Rcpt(rcpt));
                self.await_with(phase, Pending::Again(told.saturating_add(1)), rcpt)
            }
            None => {
                let answer = Answer::Refused(Refusal::BackendChanged);
                self.clear(phase.without_transaction(), answer)
            }
        }
    }

    pub(super) fn chunk_moved(&mut self, phase: Phase, bdat: Bdat, moved: Moved) -> Step {
        match moved {
            Moved::Answered(reply) => match (class(&reply), phase) {
                (Class::Done, phase) if bdat.last => {
                    self.message_taken();
                    self.answer(phase.without_transaction(), Answer::Backend(reply))
                }
                (Class::Done, Phase::Mail(greeted, envelope)) => self.answer(
                    Phase::Chunks(greeted, envelope, bdat.size),
                    Answer::Backend(reply),
                ),
                (Class::Done, Phase::Chunks(greeted, envelope, octets)) => {
                    let octets = octets.saturating_add(bdat.size);
                    self.answer(
                        Phase::Chunks(greeted, envelope, octets),
                        Answer::Backend(reply),
                    )
                }
                (Class::Refused, phase) => {
                    let answer = Answer::Backend(reply);
                    self.clear(after_chunk(phase, bdat, &answer), answer)
                }
                (Class::Closing, _) => closing(reply),
                _ => end(Refusal::BackendNonsense),
            },
            // It offered CHUNKING, and has taken the octets for commands.
            Moved::Interrupted(reply) if reply.is_not_understood() => {
                self.link = None;
                let answer = Answer::Refused(Refusal::BackendChanged);
                let phase = after_chunk(phase, bdat, &answer);
                self.answer(phase, answer)
            }
            other => match self.broken(other) {
                Err(ending) => Step::End(ending),
                Ok(answer) => {
                    let phase = after_chunk(phase, bdat, &answer);
                    self.answer(phase, answer)
                }
            },
        }
    }

    fn message_taken(&mut self) {
        self.junk = 0;
        self.done = self.done.saturating_add(1);
    }

    pub(super) fn discarded(&mut self, phase: Phase, bdat: Bdat, answer: Answer) -> Step {
        match phase {
            // What the backend has of the message must go.
            Phase::Mail(..) | Phase::Chunks(..) => {
                self.clear(after_chunk(phase, bdat, &answer), answer)
            }
            Phase::Start | Phase::Greeted(_) | Phase::Failed(..) => self.answer(phase, answer),
        }
    }

    /// A body that did not reach its end at the backend: its connection is closed.
    fn broken(&mut self, moved: Moved) -> Result<Answer, Ending> {
        self.link = None;
        let refusal = match moved {
            Moved::Offence(offence) => Refusal::Body(offence),
            Moved::TooLarge => Refusal::TooLarge,
            Moved::Lost => Refusal::BackendGone,
            Moved::Interrupted(reply) => {
                return match class(&reply) {
                    Class::Refused => Ok(Answer::Backend(reply)),
                    Class::Closing => Err(Ending::Said(Answer::Backend(reply))),
                    // Invariant 4: a 2xx before the end acknowledges nothing.
                    Class::Done | Class::More | Class::Nonsense => {
                        Err(refused(Refusal::BackendNonsense))
                    }
                };
            }
            Moved::Endless => return Err(refused(Refusal::TooLarge)),
            Moved::TooSlow => return Err(refused(Refusal::TooSlow)),
            Moved::Gone | Moved::Answered(_) => return Err(Ending::Gone),
            Moved::GoneFrom(offence) => return Err(Ending::Cut(Refusal::Body(offence))),
        };
        if refusal.is_error()
            && let Some(ending) = self.count_error()
        {
            return Err(ending);
        }
        Ok(Answer::Refused(refusal))
    }
}

/// RFC 3030 2: what a chunk is answered with.
fn kept(bdat: Bdat) -> String {
    format!("{} octets received", bdat.size)
}

/// What a chunk that is thrown away hears of what failed before it: the same, unless
/// that would say that BDAT was not understood. Who hears this may hold the octets of the
/// chunk to have been read as commands.
fn for_chunk(answer: &Answer) -> Answer {
    let is_misunderstood = match answer {
        Answer::Own(reply) | Answer::Backend(reply) => reply.is_not_understood(),
        Answer::Refused(refusal) => refusal.reply().is_not_understood(),
    };
    if is_misunderstood {
        return Answer::Refused(Refusal::Sequence("The transaction has failed"));
    }
    answer.clone()
}

fn refused(refusal: Refusal) -> Ending {
    Ending::Said(Answer::Refused(refusal))
}

/// Where a transaction stands after a chunk failed.
fn after_chunk(phase: Phase, bdat: Bdat, answer: &Answer) -> Phase {
    if bdat.last {
        phase.without_transaction()
    } else {
        phase.failed(answer)
    }
}
