//! Whatever spamd answers becomes an opinion within bounds, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::policy::content::Word;
use portcullis::scan::{ServiceAddress, Spamassassin, SpamdReport};
use portcullis::settings::Value;
use portcullis_fuzz::assert_one_line;

fuzz_target!(|data: &[u8]| {
    for report in [SpamdReport::Added, SpamdReport::Omitted] {
        let address = ServiceAddress::parse("127.0.0.1:783").unwrap();
        match Spamassassin::new(address, None, report).opinion(data) {
            Ok(opinion) => {
                let Word::Score {
                    score,
                    threshold,
                    rules,
                } = opinion.word
                else {
                    panic!("{:?}", opinion.word)
                };
                assert!(score.is_finite() && threshold.is_some_and(f64::is_finite));
                assert!(rules.len() <= 200);
                rules.iter().for_each(|rule| assert_one_line(rule));
                for change in opinion.changes {
                    assert!(change.checked().is_ok());
                }
            }
            Err(error) => assert_one_line(&error.to_string()),
        }
    }
});
