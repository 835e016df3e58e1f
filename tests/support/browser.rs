//! A real headless Chromium that does what a test says, by the WebDriver protocol
//! (W3C WebDriver; `goog/cdp/execute` and `se/log` are chromedriver's own).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Daemon, free_address, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Browser {
    driver: SocketAddr,
    session: String,
    _daemon: Daemon,
}

impl Browser {
    #[track_caller]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let driver = free_address();
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={}", driver.port()));
        let arguments = [
            "--headless=new".to_owned(),
            // The tests may run as root, where Chromium has no sandbox.
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            // Names other than addresses: all lead to the server under test.
            "--host-resolver-rules=MAP * 127.0.0.1".to_owned(),
            format!("--user-data-dir={}", folder.path().display()),
        ];
        let daemon = Daemon::start(command, folder, driver);
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"},
        }}});
        let session = talk(driver, "POST", "/session", Some(&wanted));
        let session = session["sessionId"].as_str().expect("no session");
        Self {
            driver,
            session: session.to_owned(),
            _daemon: daemon,
        }
    }

    #[track_caller]
    pub fn open(&self, url: &str) {
        self.post("url", &json!({ "url": url }));
    }

    /// What this script returns.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.post("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Runs the script until it returns something that is true.
    #[track_caller]
    pub fn wait(&self, condition: &str) {
        let met = wait_for(Duration::from_secs(20), || {
            (self.run(&format!("return Boolean({condition})")) == true).then_some(())
        });
        let shown = self.run("return document.documentElement.outerHTML");
        assert!(met.is_some(), "never `{condition}` in {shown:#}");
    }

    /// The text that a part of the page shows.
    #[track_caller]
    pub fn text(&self, id: &str) -> String {
        let text = self.run(&format!("return document.getElementById('{id}').innerText"));
        text.as_str().expect("no text").to_owned()
    }

    /// A screen of this size and these colours, `light` or `dark`.
    #[track_caller]
    pub fn screen(&self, width: u32, height: u32, colours: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.develop("Emulation.setDeviceMetricsOverride", &size);
        let feature = json!({"name": "prefers-color-scheme", "value": colours});
        self.develop(
            "Emulation.setEmulatedMedia",
            &json!({ "features": [feature] }),
        );
    }

    /// Presses and releases a key; see "Keyboard actions" of WebDriver for the codes.
    #[track_caller]
    pub fn press(&self, key: char) {
        let keys = [
            json!({"type": "keyDown", "value": key}),
            json!({"type": "keyUp", "value": key}),
        ];
        let action = json!({"type": "key", "id": "keyboard", "actions": keys});
        self.post("actions", &json!({ "actions": [action] }));
    }

    /// Every address that the browser asked for since the last time.
    #[track_caller]
    pub fn requests(&self) -> Vec<String> {
        let entries = self.post("se/log", &json!({"type": "performance"}));
        let entries = entries.as_array().unwrap().iter();
        let messages = entries.map(|entry| -> Value {
            serde_json::from_str(entry["message"].as_str().unwrap()).unwrap()
        });
        messages
            .filter(|message| message["message"]["method"] == "Network.requestWillBeSent")
            .map(|message| {
                let url = message.pointer("/message/params/request/url").unwrap();
                url.as_str().unwrap().to_owned()
            })
            .collect()
    }

    /// What the browser complains of.
    #[track_caller]
    pub fn complaints(&self) -> Value {
        self.post("se/log", &json!({"type": "browser"}))
    }

    #[track_caller]
    fn develop(&self, command: &str, parameters: &Value) {
        let body = json!({ "cmd": command, "params": parameters });
        self.post("goog/cdp/execute", &body);
    }

    #[track_caller]
    fn post(&self, what: &str, body: &Value) -> Value {
        let path = format!("/session/{}/{what}", self.session);
        talk(self.driver, "POST", &path, Some(body))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser is in a process group of its own and goes only if asked to.
        let path = format!("/session/{}", self.session);
        drop(exchange(self.driver, "DELETE", &path, ""));
    }
}

#[track_caller]
fn talk(driver: SocketAddr, method: &str, path: &str, body: Option<&Value>) -> Value {
    let body = body.map(Value::to_string).unwrap_or_default();
    let answer = exchange(driver, method, path, &body)
        .unwrap_or_else(|error| panic!("no answer to {path}: {error}"));
    let value = serde_json::from_str::<Value>(&answer).expect(&answer)["value"].take();
    assert!(value.get("error").is_none(), "{path}: {value:#}");
    value
}

/// The body of the answer, as long as it says.
fn exchange(server: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut head = Vec::new();
    let mut octet = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut octet)?;
        head.extend(octet);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = super::between(&head, "content-length:", "\r\n");
    let length = length.and_then(|length| length.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}
