use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::clean::{CAP, Clean};
use super::*;

fn good<T: Value + PartialEq + std::fmt::Debug>(table: &[(&str, T)]) {
    for (text, value) in table {
        assert_eq!(T::parse(text).as_ref(), Ok(value), "{text:?}");
    }
}

/// Each bad text with a part of what is said about it.
fn bad<T: Value + std::fmt::Debug>(table: &[(&str, &str)]) {
    for (text, what) in table {
        let error = T::parse(text).expect_err(text);
        assert!(error.contains(what), "{text:?}: {error}");
    }
}

#[test]
fn reads_durations_with_a_unit_only() {
    let seconds = Duration::from_secs;
    good(&[
        ("500ms", Duration::from_millis(500)),
        ("30s", seconds(30)),
        ("30sec", seconds(30)),
        ("5min", seconds(300)),
        ("5m", seconds(300)),
        ("1h", seconds(3600)),
        ("2hours", seconds(7200)),
        ("1hour", seconds(3600)),
        ("1d", seconds(86400)),
        ("1h 30min", seconds(5400)),
        ("0s", seconds(0)),
    ]);
    bad::<Duration>(&[
        ("300", "no unit"),
        ("0", "no unit"),
        ("", "not a duration"),
        ("-5s", "not a duration"),
        ("5 parsecs", "not a duration"),
        ("5M", "unit M"),
        ("99999999999999999999d", "not a duration"),
    ]);
}

#[test]
fn reads_sizes_with_binary_units() {
    good(&[
        ("0", Size(0)),
        ("1500", Size(1500)),
        ("25M", Size(25 << 20)),
        ("25m", Size(25 << 20)),
        ("2K", Size(2048)),
        ("1 GiB", Size(1 << 30)),
        ("3MB", Size(3 << 20)),
    ]);
    bad::<Size>(&[
        ("", "not a size"),
        ("M", "not a size"),
        ("-1", "not a size"),
        ("1.5M", "unit other"),
        ("25T", "unit other"),
        ("18446744073709551616", "too large"),
        ("18446744073709551615K", "too large"),
    ]);
}

#[test]
fn prints_a_size_as_it_is_read() {
    for text in ["0", "1", "1025", "1K", "25M", "3G"] {
        assert_eq!(Size::parse(text).unwrap().to_string(), text);
    }
}

#[test]
fn reads_integers_and_names_the_range() {
    good::<u16>(&[("0", 0), ("65535", 65535)]);
    good::<u32>(&[("4294967295", u32::MAX)]);
    good::<u64>(&[("18446744073709551615", u64::MAX)]);
    good::<usize>(&[("7", 7)]);
    bad::<u16>(&[
        ("65536", "above 65535"),
        ("", "whole number"),
        ("+1", "whole number"),
    ]);
    bad::<u32>(&[("4294967296", "above 4294967295"), ("-1", "whole number")]);
    bad::<u64>(&[("1.0", "whole number"), ("ten", "whole number")]);
}

#[test]
fn reads_booleans() {
    let words = [("true", true), ("yes", true), ("On", true), ("1", true)];
    good(&words);
    good(&[
        ("false", false),
        ("NO", false),
        ("off", false),
        ("0", false),
    ]);
    bad::<bool>(&[("", "neither"), ("2", "neither"), ("maybe", "neither")]);
}

#[test]
fn refuses_empty_texts_and_paths() {
    good(&[("a b", "a b".to_owned())]);
    good(&[("/etc/x", PathBuf::from("/etc/x"))]);
    bad::<String>(&[("", "empty")]);
    bad::<PathBuf>(&[("", "empty")]);
    bad::<Option<Secret>>(&[("", "empty")]);
}

#[test]
fn reads_lists_between_commas_and_white_space() {
    good::<List<u16>>(&[
        ("", List(vec![])),
        ("off", List(vec![])),
        ("25, 587 465,,", List(vec![25, 587, 465])),
    ]);
    bad::<List<u16>>(&[("25, x", "item \"x\", which is not a whole number")]);
}

#[test]
fn expands_files_in_a_list() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("domains");
    fs::write(&path, "# ours\nb.example c.example # two\n\n@/nowhere\n").unwrap();
    let text = format!("a.example, @{} d.example", path.display());
    let expected = [
        "a.example",
        "b.example",
        "c.example",
        "@/nowhere",
        "d.example",
    ];
    assert_eq!(expand_list(&text).unwrap(), expected);
    let error = expand_list("@/no/such/file").unwrap_err();
    assert!(error.contains("/no/such/file"), "{error}");
}

#[test]
fn knows_who_is_in_the_networks() {
    let networks = Networks::parse("10.0.0.0/8 192.0.2.7, 2001:db8::/32,::ffff:198.51.100.0/120");
    let networks = networks.unwrap();
    let contains = |address: &str| networks.contains(address.parse::<IpAddr>().unwrap());
    for address in [
        "10.1.2.3",
        "::ffff:10.1.2.3",
        "192.0.2.7",
        "2001:db8::1",
        "198.51.100.9",
    ] {
        assert!(contains(address), "{address}");
    }
    for address in [
        "11.0.0.0",
        "192.0.2.8",
        "::ffff:11.0.0.0",
        "2001:db9::",
        "::1",
    ] {
        assert!(!contains(address), "{address}");
    }
    assert!(Networks::parse("").unwrap().is_empty());
    assert!(
        !Networks::parse("0.0.0.0/0")
            .unwrap()
            .contains("::1".parse().unwrap())
    );
}

#[test]
fn names_the_network_that_was_meant_when_host_bits_are_set() {
    bad::<Networks>(&[
        ("10.1.2.3/8", "write 10.0.0.0/8"),
        ("::1, 2001:db8::1/32", "write 2001:db8::/32"),
        ("10.0.0.0/33", "not a network"),
        ("example.org", "not a network"),
    ]);
}

#[test]
fn a_secret_is_never_printed() {
    let secret = Secret::parse("hunter2").unwrap();
    assert_eq!(
        format!("{secret} {secret:?} {:?}", Some(&secret)),
        "*** *** Some(***)"
    );
    assert_eq!(secret.reveal(), "hunter2");
}

#[test]
fn shows_no_more_of_an_address_than_allowed() {
    let v4 = "192.0.2.77".parse().unwrap();
    let mapped = "::ffff:192.0.2.77".parse().unwrap();
    let v6 = "2001:db8:1:2:3::4".parse().unwrap();
    let show = |mode: LogAddresses| {
        [v4, mapped, v6].map(|address| mode.ip(address)).join(" ")
            + " "
            + &mode.mailbox("Anna@b.example")
    };
    assert_eq!(
        show(LogAddresses::Full),
        "192.0.2.77 192.0.2.77 2001:db8:1:2:3::4 Anna@b.example"
    );
    assert_eq!(
        show(LogAddresses::Masked),
        "192.0.2.0/24 192.0.2.0/24 2001:db8:1::/48 A***@b.example"
    );
    assert_eq!(show(LogAddresses::None), "- - - -");
    assert_eq!(LogAddresses::Masked.mailbox("postmaster"), "p***");
    assert_eq!(
        LogAddresses::Masked.mailbox("\"a@b\"@c.example"),
        "\"***@c.example"
    );
    assert_eq!(LogAddresses::Masked.mailbox(""), "");
}

#[test]
fn hashes_equal_addresses_alike_and_different_ones_differently() {
    let hashed = LogAddresses::Hashed;
    let ip = |text: &str| hashed.ip(text.parse().unwrap());
    assert_eq!(ip("192.0.2.1"), ip("::ffff:192.0.2.1"));
    assert_ne!(ip("192.0.2.1"), ip("192.0.2.2"));
    assert_eq!(
        hashed.mailbox("Anna@b.example"),
        hashed.mailbox("anna@B.example")
    );
    assert_ne!(
        hashed.mailbox("anna@b.example"),
        hashed.mailbox("anne@b.example")
    );
    assert_eq!(ip("192.0.2.1").len(), 16);
}

#[test]
fn cleans_what_would_act_on_a_terminal() {
    assert_eq!(
        Clean("a\r\n\x1b[2J\0é\u{202e}").to_string(),
        "a\\r\\n\\u{1b}[2J\\u{0}é\\u{202e}"
    );
    let long = Clean(&"é".repeat(CAP + 3)).to_string();
    assert!(long.ends_with("é[3 more]"), "{long}");
}
