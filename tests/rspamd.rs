//! A real rspamd, asked by the library as a session asks it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::time::{Duration, Instant};

use portcullis::policy::content::{
    self, Change, ContentVerdict, Judgement, Opinion, Place, Scanner, Word, judge_content,
};
use portcullis::scan::{Message, OrOff, ScanTimeout, Scanners, Settings};
use portcullis::settings::Value;
use portcullis::smtp::header::Editor;
use portcullis::spool::Body;
use portcullis::tls::TlsDetails;
use support::{Opendkim, Rspamd, hold, letter};

/// The string that every spam filter knows: <https://spamassassin.apache.org/gtube/>.
const GTUBE: &str = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n";

/// Tells what it was told, in a field that it wants added; a letter may choose
/// the action by its subject.
const RULES: &str = r#"
local function seen(task)
  local function text(value) return value and tostring(value) or '-' end
  local recipients = {}
  for _, recipient in ipairs(task:get_recipients('smtp') or {}) do
    recipients[#recipients + 1] = recipient.addr
  end
  local from = (task:get_from('smtp') or {})[1]
  task:set_milter_reply({
    add_headers = { ['X-Seen'] = table.concat({
      'ip=' .. text(task:get_from_ip()),
      'helo=' .. text(task:get_helo()),
      'from=' .. text(from and from.addr),
      'rcpts=' .. table.concat(recipients, '+'),
      'user=' .. text(task:get_user()),
      'id=' .. text(task:get_queue_id()),
      'mta=' .. text(task:get_request_header('MTA-Name')),
      'tls=' .. text(task:get_request_header('TLS-Version')),
      'cipher=' .. text(task:get_request_header('TLS-Cipher')),
      'trace=' .. text(task:get_header('X-Trace')),
      'size=' .. text(task:get_size()),
    }, ' '), ['X-Top'] = { value = 'top', order = 0 } },
    remove_headers = { ['X-Gone'] = 0 },
  })
end
rspamd_config:register_symbol({ name = 'SEEN', type = 'callback', callback = seen })

local function chosen(task)
  local action = string.match(task:get_subject() or '', '^action: (.*)$')
  if action == 'rewrite subject' then
    task:set_metric_subject('Grüße [spam]')
  end
  if action then
    task:set_pre_result({ action = action, message = 'as you wish', module = 'test' })
  end
end
rspamd_config:register_symbol({ name = 'CHOSEN', type = 'prefilter', callback = chosen })
"#;

fn scanners(rspamd: &Rspamd, patience: &str) -> Scanners {
    Scanners::new(&Settings {
        rspamd: OrOff::parse(&format!("http://{}", rspamd.address)).unwrap(),
        scan_timeout: ScanTimeout::parse(patience).unwrap(),
        ..Settings::default()
    })
}

fn message<'a>(body: &'a Body, recipients: &'a [String]) -> Message<'a> {
    Message {
        client: Some("192.0.2.7:4711".parse().unwrap()),
        hello: "mx.sender.test",
        protocol: "ESMTP",
        user: None,
        tls: None,
        sender: "ann@sender.test",
        recipients,
        id: "Z66SXEP8SH8N",
        hostname: "mx.example.org",
        trace: b"X-Trace: ours\r\n",
        hop: b"X-Trace: ours\r\n",
        body,
    }
}

async fn scan(scanners: &Scanners, content: &str) -> Vec<Opinion> {
    let body = hold(content).await;
    let recipients = ["bob@example.org".to_owned()];
    scanners.scan(&message(&body, &recipients)).await.opinions
}

fn judge(opinions: &[Opinion]) -> Judgement {
    judge_content(&content::Settings::default(), opinions)
}

fn delivered(judgement: Judgement, content: &str) -> String {
    let mut out = Vec::new();
    let mut editor = Editor::new(b"X-Trace: ours\r\n", judgement.edits);
    editor.edit(content.as_bytes(), &mut out);
    editor.finish(&mut out);
    String::from_utf8(out).unwrap()
}

/// The letter without the fields that were added.
fn without_additions(delivered: &str) -> String {
    let fields = ["X-Trace:", "X-Spam-", "\t", "X-Seen:", "X-Top:"];
    let mut lines = delivered.split_inclusive("\r\n");
    lines
        .by_ref()
        .filter(|line| !fields.iter().any(|field| line.starts_with(field)))
        .collect()
}

#[tokio::test]
async fn clean_passes_unchanged_but_for_added_fields() {
    let rspamd = Rspamd::start(RULES);
    let scanners = scanners(&rspamd, "60s");
    let letter = letter("clean");
    let forged = format!("X-Gone: 1\r\nX-Spam: No\r\nX-SPAM-Score: 99\r\nX-GONE: 2\r\n{letter}");
    let judgement = judge(&scan(&scanners, &forged).await);
    assert_eq!(judgement.verdict, ContentVerdict::Pass, "{judgement:?}");
    let delivered = delivered(judgement, &forged);
    assert!(
        delivered.starts_with("X-Trace: ours\r\nX-Spam-Flag: NO\r\nX-Spam-Score: "),
        "{delivered}"
    );
    assert!(delivered.contains("scanner=rspamd\r\nX-Top: top\r\nFrom: Ann"));
    assert_eq!(without_additions(&delivered), letter);
}

#[tokio::test]
async fn gtube_is_refused_in_rspamds_own_words() {
    let rspamd = Rspamd::start("");
    let content = letter("spam") + GTUBE;
    let opinions = scan(&scanners(&rspamd, "60s"), &content).await;
    match judge(&opinions).verdict {
        ContentVerdict::Refuse(reply) => {
            assert_eq!(reply.to_string(), "550 5.7.1 Gtube pattern\r\n");
        }
        other => panic!("{other:?} {opinions:?}"),
    }
}

/// Where the message has no header section, what looks like one is its body.
#[tokio::test]
async fn an_empty_line_in_front_is_no_white_space() {
    let rspamd = Rspamd::start(RULES);
    let recipients = ["bob@example.org".to_owned()];
    for (front, passes) in [("", false), ("\r\n", true)] {
        let body = hold(format!("{front}Subject: action: reject\r\n\r\nx\r\n")).await;
        let message = Message {
            trace: b"",
            ..message(&body, &recipients)
        };
        let opinions = scanners(&rspamd, "60s").scan(&message).await.opinions;
        let refused = |opinion: &Opinion| matches!(opinion.word, Word::Refuse { .. });
        assert_eq!(opinions.iter().any(refused), !passes, "{opinions:?}");
    }
}

#[tokio::test]
async fn the_facts_of_the_envelope_reach_its_rules() {
    let rspamd = Rspamd::start(RULES);
    let scanners = scanners(&rspamd, "60s");
    let content = letter("facts");
    let body = hold(&content).await;
    let recipients = [
        "bob@example.org",
        "postmaster",
        "\"a b\"@[192.0.2.1]",
        "jürgen@bücher.test",
    ]
    .map(str::to_owned);
    let tls = TlsDetails {
        version: "TLSv1.3",
        cipher: "TLS_AES_256_GCM_SHA384",
        sni: None,
        resumed: false,
    };
    let said = scanners
        .scan(&Message {
            user: Some("ann"),
            tls: Some(&tls),
            ..message(&body, &recipients)
        })
        .await
        .opinions;
    let expected = format!(
        "ip=192.0.2.7 helo=mx.sender.test from=ann@sender.test \
         rcpts=bob@example.org+postmaster@mx.example.org+a b@192.0.2.1+j%C3%BCrgen@xn--bcher-kva.test \
         user=ann id=Z66SXEP8SH8N mta=mx.example.org tls=TLSv1.3 \
         cipher=TLS_AES_256_GCM_SHA384 trace=ours size={}",
        content.len() + "X-Trace: ours\r\n".len()
    );
    let seen = Change::Add {
        place: Place::Last,
        name: "X-Seen".to_owned(),
        value: expected,
    };
    assert!(said[0].changes.contains(&seen), "{said:#?}");
    match &said[0].word {
        Word::Score { rules, .. } => {
            // So says rspamd of an address that it cannot read.
            assert!(!rules.contains(&"BROKEN_HEADERS".to_owned()), "{rules:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_null_path_and_an_unknown_client_are_no_fault() {
    let rspamd = Rspamd::start(RULES);
    let content = letter("bounce");
    let body = hold(content).await;
    let said = scanners(&rspamd, "60s")
        .scan(&Message {
            client: None,
            sender: "",
            ..message(&body, &[])
        })
        .await
        .opinions;
    let seen = |change: &Change| match change {
        Change::Add { value, .. } => value.contains(" from= rcpts= "),
        _ => false,
    };
    assert!(said[0].changes.iter().any(seen), "{said:?}");
    assert_eq!(judge(&said).verdict, ContentVerdict::Pass);
}

#[tokio::test]
async fn its_actions_become_verdicts() {
    let rspamd = Rspamd::start(RULES);
    let scanners = scanners(&rspamd, "60s");
    for (action, expected) in [
        ("no action", "pass"),
        ("greylist", "pass"),
        ("add header", "tag"),
        ("rewrite subject", "tag"),
        ("soft reject", "451 4.7.1 as you wish"),
        ("reject", "550 5.7.1 as you wish"),
    ] {
        let content = letter(&format!("action: {action}"));
        let opinions = scan(&scanners, &content).await;
        let judgement = judge(&opinions);
        let verdict = match &judgement.verdict {
            ContentVerdict::Pass => "pass".to_owned(),
            ContentVerdict::Tag => "tag".to_owned(),
            ContentVerdict::Defer(reply) | ContentVerdict::Refuse(reply) => {
                reply.to_string().trim_end().to_owned()
            }
        };
        assert_eq!(verdict, expected, "{action}: {opinions:#?}");
        let delivered = delivered(judgement, &content);
        let is_marked = delivered.contains("X-Spam-Flag: YES\r\n");
        assert_eq!(is_marked, expected == "tag", "{action}: {delivered}");
        if action == "rewrite subject" {
            assert!(delivered.contains("\r\nSubject: =?UTF-8?"), "{delivered}");
            assert!(!delivered.contains("Subject: action:"));
        }
    }
}

#[tokio::test]
async fn a_hundred_messages_at_once_and_a_large_one() {
    let rspamd = Rspamd::start("");
    let scanners = std::sync::Arc::new(scanners(&rspamd, "2min"));
    let scans: Vec<_> = (0..100)
        .map(|number| {
            let scanners = std::sync::Arc::clone(&scanners);
            tokio::spawn(async move {
                let spam = if number % 2 == 0 { GTUBE } else { "" };
                let content = letter(&format!("number-{number}")) + spam;
                judge(&scan(&scanners, &content).await).verdict
            })
        })
        .collect();
    for (number, scan) in scans.into_iter().enumerate() {
        let verdict = scan.await.unwrap();
        let is_refused = matches!(verdict, ContentVerdict::Refuse(_));
        assert_eq!(is_refused, number % 2 == 0, "{number}: {verdict:?}");
    }
    let large = letter("large") + &"0123456789abcdef\r\n".repeat((20 << 20) / 18) + GTUBE;
    let opinions = scan(&scanners, &large).await;
    assert!(
        matches!(opinions[0].word, Word::Score { .. }),
        "{opinions:?}"
    );
}

/// A client's name is not known here, and the README says how not to have that counted.
#[tokio::test]
async fn a_client_without_a_name_costs_points_unless_that_is_switched_off() {
    let switched_off = [("local.d/hfilter.conf", "hostname_enabled = false;")];
    for (own, is_counted) in [(&[][..], true), (&switched_off, false)] {
        let rspamd = Rspamd::with("", own);
        let said = scan(&scanners(&rspamd, "60s"), &letter("nameless")).await;
        match &said[0].word {
            Word::Score { rules, .. } => {
                let unknown = "HFILTER_HOSTNAME_UNKNOWN".to_owned();
                assert_eq!(rules.contains(&unknown), is_counted, "{rules:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// One signature comes as a text, two as a list.
#[tokio::test]
async fn it_signs_for_a_client_that_has_signed_in() {
    let opendkim = Opendkim::start();
    let key = opendkim.daemon.folder().join("key.pem");
    let selector = format!("{{ path = \"{}\"; selector = \"s\"; }}", key.display());
    for (selectors, count) in [
        (selector.clone(), 1),
        (format!("{selector}, {selector}"), 2),
    ] {
        let settings = format!("domain {{ example.com {{ selectors = [{selectors}]; }} }}");
        let own = [("local.d/dkim_signing.conf", settings.as_str())];
        let rspamd = Rspamd::with("", &own);
        let content = letter("sign").replace("ann@sender.test", "alice@example.com");
        let (body, recipients) = (hold(&content).await, ["bob@example.org".to_owned()]);
        let message = Message {
            user: Some("alice@example.com"),
            sender: "alice@example.com",
            ..message(&body, &recipients)
        };
        let opinions = scanners(&rspamd, "60s").scan(&message).await.opinions;
        let delivered = delivered(judge(&opinions), &content);
        assert_eq!(
            delivered
                .matches("\r\nDKIM-Signature: v=1; a=rsa-sha256;")
                .count(),
            count,
            "{delivered}\n{}",
            rspamd.log()
        );
        assert!(delivered.starts_with("X-Trace: ours\r\n"));
        assert!(opendkim.is_good_elsewhere(&delivered), "{delivered}");
        assert!(!opendkim.is_good_elsewhere(&delivered.replace("Dear Bob", "Dear Eve")));
    }
}

/// rspamd repeats the message's hosts, addresses and Message-ID, of which there may be
/// more than of anything that it says by itself.
#[tokio::test]
async fn no_message_makes_its_answer_too_long_to_be_heard() {
    let rspamd = Rspamd::start(RULES);
    let scanners = scanners(&rspamd, "60s");
    let domain = [
        "x".repeat(60),
        "x".repeat(60),
        "x".repeat(60),
        "test".into(),
    ]
    .join(".");
    let hosts: String = (0..11_000)
        .map(|number| format!("http://{number}.{domain}/\r\n"))
        .collect();
    let naming_hosts = letter("action: reject") + &hosts;
    let id = format!("<{}@sender.test>", "\\".repeat(9 << 20));
    let long_id = (letter("id") + GTUBE).replace("<id@sender.test>", &id);
    for content in [naming_hosts, long_id] {
        // More often than it takes to put a scanner out of service.
        for _ in 0..4 {
            let opinions = scan(&scanners, &content).await;
            match judge(&opinions).verdict {
                ContentVerdict::Refuse(reply) => assert_eq!(reply.code(), 550),
                other => panic!("{other:?} {opinions:?}"),
            }
        }
    }
}

#[tokio::test]
async fn one_that_hangs_fails_in_time_and_is_asked_again_once_it_is_back() {
    let rspamd = Rspamd::start("");
    let scanners = scanners(&rspamd, "1s");
    rspamd.stop();
    let start = Instant::now();
    let opinions = scan(&scanners, &letter("late")).await;
    let late = Word::Failed("no answer in time".to_owned());
    assert_eq!(opinions, [Opinion::new(Scanner::Rspamd, late)]);
    assert!(start.elapsed() < Duration::from_secs(10));
    match judge(&opinions).verdict {
        ContentVerdict::Defer(reply) => assert_eq!(reply.code(), 451),
        other => panic!("{other:?}"),
    }
    rspamd.cont();
    let patient = self::scanners(&rspamd, "60s");
    let opinions = scan(&patient, &letter("back")).await;
    assert_eq!(judge(&opinions).verdict, ContentVerdict::Pass);
    assert_eq!(patient.ping().await[0].1.as_deref().unwrap(), "pong");
}
