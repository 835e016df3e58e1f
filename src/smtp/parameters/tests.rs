use super::*;

fn mail(text: &str) -> Result<MailParameters, CommandError> {
    MailParameters::parse(text)
}

fn rcpt(text: &str) -> Result<RcptParameters, CommandError> {
    RcptParameters::parse(text)
}

#[track_caller]
fn bad_mail(parameter: &'static str, texts: &[&str]) {
    for text in texts {
        let verb = Verb::Mail;
        assert_eq!(
            mail(text),
            Err(CommandError::BadParameter { verb, parameter }),
            "{text:?}"
        );
    }
}

#[track_caller]
fn bad_rcpt(parameter: &'static str, texts: &[&str]) {
    for text in texts {
        let verb = Verb::Rcpt;
        assert_eq!(
            rcpt(text),
            Err(CommandError::BadParameter { verb, parameter }),
            "{text:?}"
        );
    }
}

#[test]
fn prints_mail_parameters_in_one_order_and_case() {
    let sent = " requiretls auth=<> envid=Q+2B1 ret=hdrs smtputf8 body=8bitmime size=0042";
    let canonical = " SIZE=42 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=Q+2B1 AUTH=<> REQUIRETLS";
    assert_eq!(mail(sent).unwrap().to_string(), canonical);
    assert_eq!(mail(canonical).unwrap().to_string(), canonical);
    assert_eq!(mail("").unwrap(), MailParameters::default());
}

#[test]
fn prints_rcpt_parameters_in_one_order_and_case() {
    let sent = " orcpt=RFC822;a+2Bb@x notify=delay,Success";
    let canonical = " NOTIFY=SUCCESS,DELAY ORCPT=RFC822;a+2Bb@x";
    let parsed = rcpt(sent).unwrap();
    assert_eq!(parsed.to_string(), canonical);
    let orcpt = parsed.orcpt.unwrap();
    assert_eq!((orcpt.kind(), orcpt.address()), ("RFC822", "a+b@x"));
    assert_eq!(rcpt(" NOTIFY=never").unwrap().to_string(), " NOTIFY=NEVER");
}

/// RFC 6533 3.
#[test]
fn orcpt_of_a_utf8_address_may_be_no_ascii() {
    for kept in [
        "utf-8;jürgen@müller.example",
        "UTF-8;\\x{20}ü",
        "utf-8;a@\\x{fc}.example",
    ] {
        let text = format!(" ORCPT={kept}");
        let parsed = rcpt(&text).unwrap();
        assert_eq!(parsed.to_string(), text);
        assert_eq!(parsed.is_ascii(), kept.is_ascii(), "{kept}");
    }
    bad_rcpt(
        "ORCPT",
        &[
            " ORCPT=rfc822;jürgen@example.org",
            " ORCPT=utf-8;ü+FC",
            " ORCPT=utf-8;ü=",
            " ORCPT=utf-8;ü\u{85}",
            " ORCPT=utf-8;ü\u{202e}x",
            " ORCPT=utf-8;ü\tx",
        ],
    );
    let long = |length| rcpt(&format!(" ORCPT=utf-8;{}", "ü".repeat(length))).is_ok();
    assert!(long(247) && !long(248), "octets are counted");
}

#[test]
fn size_is_up_to_twenty_digits_and_fits() {
    assert_eq!(
        mail(" SIZE=18446744073709551615").unwrap().size,
        Some(u64::MAX)
    );
    assert_eq!(mail(" SIZE=00000000000000000001").unwrap().size, Some(1));
    bad_mail(
        "SIZE",
        &[
            " SIZE",
            " SIZE=",
            " SIZE=-1",
            " SIZE=+1",
            " SIZE=1k",
            " SIZE=0x10",
            // A parser that stops at overflow would read a small number here.
            " SIZE=99999999999999999999999",
            " SIZE=18446744073709551616",
            " SIZE=000000000000000000001",
            " SIZE=1=1",
            " SIZE=1 SIZE=2",
        ],
    );
}

#[test]
fn refuses_bad_and_repeated_values() {
    bad_mail("BODY", &[" BODY=9BIT", " BODY", " BODY=7BIT BODY=7BIT"]);
    bad_mail("RET", &[" RET=BOTH", " RET=FULL ret=HDRS"]);
    bad_mail(
        "SMTPUTF8",
        &[" SMTPUTF8=", " SMTPUTF8=1", " SMTPUTF8 SMTPUTF8"],
    );
    bad_mail("REQUIRETLS", &[" REQUIRETLS=NO", " requiretls REQUIRETLS"]);
    bad_mail(
        "ENVID",
        &[
            " ENVID=",
            " ENVID=a+0",
            " ENVID=a=b",
            " ENVID=a+0AAction:failed",
            " ENVID=a+7F",
            " ENVID=é",
            " ENVID=a ENVID=b",
        ],
    );
    bad_rcpt(
        "NOTIFY",
        &[
            " NOTIFY=",
            " NOTIFY=NEVER,SUCCESS",
            " NOTIFY=SUCCESS,NEVER",
            " NOTIFY=SUCCESS,",
            " NOTIFY=SUCCESS,SUCCESS",
            " NOTIFY=ALWAYS",
            " NOTIFY=NEVER NOTIFY=NEVER",
        ],
    );
    bad_rcpt(
        "ORCPT",
        &[
            " ORCPT=a@b",
            " ORCPT=;a@b",
            " ORCPT=rfc822;",
            " ORCPT=rfc 822;a",
            " ORCPT=rfc822;a+b",
            " ORCPT=rfc822;a+0D+0Ab",
            " ORCPT=rfc822;a ORCPT=rfc822;a",
        ],
    );
}

#[test]
fn submitter_is_a_mailbox_in_xtext() {
    let auth = |text| mail(text).unwrap().auth.unwrap();
    assert_eq!(auth(" AUTH=<>"), Submitter::Unknown);
    assert_eq!(
        auth(" AUTH=e+3Dmc2@example.com").to_string(),
        "e+3Dmc2@example.com"
    );
    assert_eq!(auth(" AUTH=+22a+20b+22@x").to_string(), "\"a+20b\"@x");
    bad_mail(
        "AUTH",
        &[
            " AUTH=",
            " AUTH=user",
            " AUTH=<a@b>",
            " AUTH=a+0D+0Ab@x",
            " AUTH=a=b@x",
            " AUTH=a+C3+A9@x",
            " AUTH=<> AUTH=<>",
        ],
    );
}

#[test]
fn lengths_are_bounded() {
    let envid = |length| mail(&format!(" ENVID={}", "a".repeat(length))).is_ok();
    assert!(envid(100) && !envid(101));
    assert!(
        mail(&format!(" ENVID={}", "+41".repeat(34))).is_err(),
        "counted encoded"
    );
    let orcpt = |length| rcpt(&format!(" ORCPT=rfc822;{}", "a".repeat(length))).is_ok();
    assert!(orcpt(493) && !orcpt(494));
}

#[test]
fn unknown_parameters_are_told_from_malformed_ones() {
    let verb = Verb::Mail;
    for unknown in [" XOORG=x", " NOTIFY=NEVER", " HOLDFOR=1", " SIZE2=1"] {
        assert_eq!(mail(unknown), Err(CommandError::UnknownParameter { verb }));
    }
    assert_eq!(
        rcpt(" SIZE=1"),
        Err(CommandError::UnknownParameter { verb: Verb::Rcpt })
    );
    for malformed in [
        "SIZE=1",
        " ",
        "  SIZE=1",
        " SIZE=1  BODY=7BIT",
        " =1",
        " -X",
        " SI_ZE=1",
        " <a@b>",
    ] {
        assert!(
            matches!(mail(malformed), Err(CommandError::Syntax { .. })),
            "{malformed:?}"
        );
    }
}
