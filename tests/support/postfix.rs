//! A real Postfix as the guarded server: one instance per value of `Postfix`.
//!
//! It trusts all of 127.0.0.0/8 as its own network, and the hosts at cables, which
//! makes it an open relay towards anything that connects from this machine: what a careless backend is to
//! its proxy. Foreign mail that it takes is discarded, never sent.
//!
//! Postfix can only be started by root.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Gid, Group, Pid, Uid, User};

use super::{Cable, Certificate, Smtp, free_address, run, wait_for};

const DAEMONS: &str = "/usr/lib/postfix/sbin";
const NOBODY: u32 = 65534;
const REALM: &str = "portcullis.test";

/// The parts of the distribution's `master.cf` that a receiving server needs,
/// unprivileged and without chroot.
const SERVICES: &str = "\
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
showq unix n - n - - showq
postlog unix-dgram n - n - 1 postlogd
";

/// How this Postfix accepts to be told of the real client.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Learns {
    #[default]
    ByXclient,
    /// Every connection must begin with a PROXY header.
    ByProxyHeader,
    Nothing,
}

#[derive(Default)]
pub struct Options<'a> {
    pub learns: Learns,
    /// Names and passwords; with any, AUTH PLAIN and LOGIN are offered.
    pub users: &'a [(&'a str, &'a str)],
    /// With one, STARTTLS is offered.
    pub certificate: Option<&'a Certificate>,
    /// More lines for `main.cf`.
    pub extra: &'a str,
    /// It runs on the host at the far end.
    pub behind: Option<&'a Cable>,
}

pub struct Postfix {
    pub address: SocketAddr,
    /// Speaks TLS from the first octet, if there is a certificate.
    pub wrapped: SocketAddr,
    learns: Learns,
    /// The network namespace that it runs in.
    host: Option<String>,
    folder: tempfile::TempDir,
    master: Child,
}

impl Postfix {
    /// Starts an instance that takes mail for `example.org` and waits until it
    /// answers.
    pub fn start(options: Options) -> Self {
        assert!(
            Uid::effective().is_root(),
            "Postfix can only be started by root: run tests/run, or these tests under sudo"
        );
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let mut address = free_address();
        if let Some(cable) = options.behind {
            address.set_ip(cable.far.into());
        }
        lay_out(root);
        if !options.users.is_empty() {
            write_users(root, options.users);
        }
        write_cold(&root.join("etc/main.cf"), &main_cf(root, &options));
        let wrapped = free_address();
        let mut listener = format!("{address} inet n - n - 200 smtpd\n");
        if options.certificate.is_some() {
            listener.push_str(&format!(
                "{wrapped} inet n - n - 200 smtpd -o smtpd_tls_wrappermode=yes\n"
            ));
        }
        listener.push_str(SERVICES);
        write_cold(&root.join("etc/master.cf"), &listener);

        let host = options.behind.map(|cable| cable.host.clone());
        let master = master(root, host.as_deref());
        let mut postfix = Self {
            address,
            wrapped,
            learns: options.learns,
            host,
            folder,
            master,
        };
        postfix.wait_until_it_answers();
        postfix
    }

    /// Ends it and all its services at once, wherever they are.
    pub fn kill(&mut self) {
        self.signal_all(Signal::SIGKILL);
        drop(self.master.wait());
    }

    /// Its sockets stay open and nobody answers there.
    pub fn freeze(&self) {
        self.signal_all(Signal::SIGSTOP);
    }

    /// Lets it go on where it was.
    pub fn thaw(&self) {
        self.signal_all(Signal::SIGCONT);
    }

    fn signal_all(&self, signal: Signal) {
        let _ = killpg(Pid::from_raw(self.master.id() as i32), signal);
    }

    /// Ends it as an admin would.
    pub fn stop(&mut self) {
        let master = Pid::from_raw(self.master.id() as i32);
        let _ = kill(master, Signal::SIGTERM);
        let ended = wait_for(Duration::from_secs(5), || {
            self.master.try_wait().ok().flatten()
        });
        if ended.is_none() {
            self.kill();
        }
    }

    /// Once it has ended, at the same address, with what it had taken on.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.master = master(self.folder.path(), self.host.as_deref());
        self.wait_until_it_answers();
    }

    /// Whether there is no message that it has taken on and not delivered.
    pub fn is_idle(&self) -> bool {
        let queues = ["maildrop", "incoming", "active", "deferred"];
        let spool = self.folder.path().join("spool");
        queues.iter().all(|queue| is_empty(&spool.join(queue)))
    }

    fn wait_until_it_answers(&mut self) {
        let up = wait_for(Duration::from_secs(20), || {
            let gone = self.master.try_wait().unwrap().is_some();
            let listens = std::net::TcpStream::connect(self.address).is_ok();
            (gone || listens).then_some(listens)
        });
        if up != Some(true) {
            let said = fs::read_to_string(self.folder.path().join("master.stderr"));
            panic!("postfix did not start: {said:?}\n{}", self.written_log());
        }
    }

    /// All messages delivered so far, with CRLF line ends, in order of arrival, once
    /// there are at least `count`.
    #[track_caller]
    pub fn messages(&self, count: usize) -> Vec<Vec<u8>> {
        let arrived = wait_for(Duration::from_secs(60), || {
            let files = self.delivered();
            (files.len() >= count).then_some(files)
        });
        let Some(files) = arrived else {
            panic!(
                "{} of {count} messages arrived\n{}",
                self.delivered().len(),
                self.log()
            );
        };
        files
            .iter()
            .map(|file| with_crlf(&fs::read(file).unwrap()))
            .collect()
    }

    /// The one message that is expected, header and body.
    #[track_caller]
    pub fn message(&self) -> Vec<u8> {
        let mut messages = self.messages(1);
        assert_eq!(messages.len(), 1, "more arrived than was sent");
        messages.remove(0)
    }

    /// The process id of its master.
    pub fn id(&self) -> u32 {
        self.master.id()
    }

    /// How many messages this Postfix has taken on, delivered or not.
    pub fn taken(&self) -> usize {
        let log = self.log();
        log.lines().filter(|line| line.contains(" client=")).count()
    }

    /// How many connections it has had from 127.0.0.1, where the program comes from.
    pub fn connections(&self) -> usize {
        let log = self.log();
        log.matches(": connect from unknown[127.0.0.1]").count()
    }

    fn delivered(&self) -> Vec<PathBuf> {
        let Ok(folder) = fs::read_dir(self.folder.path().join("mail/box/new")) else {
            return Vec::new();
        };
        let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// All that Postfix has logged up to this call.
    ///
    /// The log is written behind the conversation. Its lines stay in order, so once a
    /// visit from an address of its own has been logged, everything older has too.
    pub fn log(&self) -> String {
        static VISIT: AtomicU8 = AtomicU8::new(1);
        let visitor = Ipv4Addr::new(127, 77, 0, VISIT.fetch_add(1, Ordering::Relaxed));
        let mut visit = Smtp::connect_from(visitor, self.address);
        if self.learns == Learns::ByProxyHeader {
            visit.say(&format!("PROXY TCP4 {visitor} 127.0.0.1 1 25"));
        }
        visit.expect("220");
        visit.ask("QUIT", "221");

        let mark = format!(" connect from unknown[{visitor}]");
        wait_for(Duration::from_secs(10), || {
            Some(self.written_log()).filter(|log| log.contains(&mark))
        })
        .unwrap_or_else(|| panic!("no visit of {visitor} in\n{}", self.written_log()))
    }

    /// Waits for something that Postfix logs in its own time, such as a delivery.
    #[track_caller]
    pub fn log_with(&self, text: &str) -> String {
        wait_for(Duration::from_secs(20), || {
            Some(self.written_log()).filter(|log| log.contains(text))
        })
        .unwrap_or_else(|| panic!("no `{text}` in\n{}", self.written_log()))
    }

    fn written_log(&self) -> String {
        let bytes = fs::read(self.folder.path().join("mail.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // A child that has ended may have given its number away.
        if matches!(self.master.try_wait(), Ok(None)) {
            self.stop();
        }
    }
}

/// With -d it stays our child. As the leader of a process group of its own it takes
/// its services along when it ends, and nobody else.
#[track_caller]
fn master(root: &Path, host: Option<&str>) -> Child {
    let master = format!("{DAEMONS}/master");
    let mut command = match host {
        // Becomes the program that it is to run.
        Some(host) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", host, &master]);
            command
        }
        None => Command::new(master),
    };
    command
        .arg("-d")
        .arg("-c")
        .arg(root.join("etc"))
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(root.join("master.stderr")).unwrap())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start postfix: {error} (tests/run installs it)"))
}

/// A file that may not be executed is no message yet: whoever wrote it was killed.
fn is_empty(queue: &Path) -> bool {
    let mut entries = fs::read_dir(queue).unwrap().flatten();
    entries.all(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => is_empty(&entry.path()),
        Ok(data) => data.permissions().mode() & 0o100 == 0,
        // It may have moved to a queue that was looked at before.
        Err(_) => false,
    })
}

/// The folders that `postfix start` would make, with the owners it would give them.
fn lay_out(root: &Path) {
    let user = User::from_name("postfix").unwrap();
    let user = user.expect("postfix is not installed (tests/run installs it)");
    let group = Group::from_name("postdrop").unwrap().unwrap();
    let make = |path: &str, owner: Uid, group: Option<Gid>, mode: u32| {
        let path = root.join(path);
        fs::create_dir_all(&path).unwrap();
        chown(&path, Some(owner.as_raw()), group.map(Gid::as_raw)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    };
    let superuser = Uid::from_raw(0);
    for open in ["", "etc", "spool", "spool/pid", "etc/sasl"] {
        make(open, superuser, None, 0o755);
    }
    for own in [
        "data",
        "spool/active",
        "spool/bounce",
        "spool/corrupt",
        "spool/defer",
    ] {
        make(own, user.uid, None, 0o700);
    }
    for own in [
        "deferred", "flush", "hold", "incoming", "private", "saved", "trace",
    ] {
        make(&format!("spool/{own}"), user.uid, None, 0o700);
    }
    make("spool/public", user.uid, Some(group.gid), 0o710);
    make("spool/maildrop", user.uid, Some(group.gid), 0o730);
    make("mail", Uid::from_raw(NOBODY), None, 0o700);
}

/// Writes a file that looks old. Postfix waits for seconds before it reads one that
/// may still be under an editor's hands.
fn write_cold(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    let file = fs::File::options().append(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(60))
        .unwrap();
}

fn main_cf(root: &Path, options: &Options) -> String {
    let root = root.display();
    let mut text = format!(
        "\
compatibility_level = 3.6
queue_directory = {root}/spool
data_directory = {root}/data
command_directory = /usr/sbin
daemon_directory = {DAEMONS}
mail_owner = postfix
setgid_group = postdrop
maillog_file = {root}/mail.log
maillog_file_prefixes = {root}
myhostname = backend.portcullis.test
myorigin = example.org
mydestination =
mynetworks = 127.0.0.0/8 198.18.0.0/15
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
message_size_limit = 67108864
virtual_mailbox_domains = example.org, example.net
virtual_mailbox_base = {root}/mail
virtual_mailbox_maps = static:box/
virtual_mailbox_limit = 0
virtual_uid_maps = static:{NOBODY}
virtual_gid_maps = static:{NOBODY}
default_transport = discard:
relay_transport = discard:
smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject
# Logs every recipient that comes this far, taken or not.
smtpd_recipient_restrictions = check_recipient_access static:{{INFO heard}}
"
    );
    match options.learns {
        Learns::ByXclient => text.push_str("smtpd_authorized_xclient_hosts = $mynetworks\n"),
        Learns::ByProxyHeader => text.push_str("smtpd_upstream_proxy_protocol = haproxy\n"),
        Learns::Nothing => {}
    }
    if !options.users.is_empty() {
        text.push_str("smtpd_sasl_auth_enable = yes\n");
        text.push_str(&format!("smtpd_sasl_local_domain = {REALM}\n"));
    }
    if let Some(certificate) = options.certificate {
        text.push_str(&format!(
            "smtpd_tls_security_level = may\n\
             smtpd_tls_loglevel = 1\n\
             smtpd_tls_received_header = yes\n\
             smtpd_tls_chain_files = {}, {}\n",
            certificate.key.display(),
            certificate.chain.display()
        ));
    }
    text.push_str(options.extra);
    text.push('\n');
    text
}

/// Debian's Postfix looks for Cyrus SASL's settings in `sasl` beside `main.cf`.
fn write_users(root: &Path, users: &[(&str, &str)]) {
    let database = root.join("etc/sasl/users").display().to_string();
    for (name, password) in users {
        let arguments = ["-p", "-c", "-f", &database, "-u", REALM, name];
        run(
            "saslpasswd2",
            &arguments,
            password.as_bytes(),
            Duration::from_secs(10),
        )
        .assert_success();
    }
    fs::set_permissions(&database, Permissions::from_mode(0o644)).unwrap();
    let settings = format!(
        "pwcheck_method: auxprop\n\
         auxprop_plugin: sasldb\n\
         mech_list: PLAIN LOGIN\n\
         sasldb_path: {database}\n"
    );
    fs::write(root.join("etc/sasl/smtpd.conf"), settings).unwrap();
}

fn with_crlf(stored: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(stored.len() + stored.len() / 32);
    for &octet in stored {
        if octet == b'\n' {
            message.push(b'\r');
        }
        message.push(octet);
    }
    message
}
