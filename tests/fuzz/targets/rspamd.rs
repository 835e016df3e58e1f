//! Whatever rspamd answers becomes opinions within bounds, or an error; a
//! refusal is always one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::policy::content::Word;
use portcullis::scan::Rspamd;
use portcullis_fuzz::{assert_one_line, assert_reply_lines};

fuzz_target!(|data: &[u8]| {
    match Rspamd::opinions(data) {
        Ok(opinions) => {
            assert!((1..=2).contains(&opinions.len()));
            for opinion in opinions {
                match opinion.word {
                    Word::Score { score, rules, .. } => {
                        assert!(score.is_finite() && rules.len() <= 200);
                    }
                    Word::Refuse { reply: Some(reply) } => {
                        assert!(reply.is_permanent());
                        assert_reply_lines(&reply.to_string(), 512);
                    }
                    Word::Defer { reply: Some(reply) } => {
                        assert!(reply.is_transient());
                        assert_reply_lines(&reply.to_string(), 512);
                    }
                    Word::Refuse { .. } | Word::Defer { .. } | Word::Quarantine(_) => {}
                    other => panic!("{other:?}"),
                }
                // The bound, and the subject.
                assert!(opinion.changes.len() <= 201);
            }
        }
        Err(error) => assert_one_line(&error.to_string()),
    }
});
