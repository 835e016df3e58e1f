"""A milter with Sendmail's libmilter under it. It notes down what it is told, one
JSON list a line, and does what the message asks for in its fields `X-Do`.

Arguments: the port and any of
  quiet    answers no step but the last
  insist   cannot do without changing recipients
  symbols  asks for macros that nobody sends by default
"""
import json
import sys

import Milter

PORT, OPTIONS = sys.argv[1], sys.argv[2:]
ACTIONS = Milter.ADDHDRS | Milter.CHGHDRS | Milter.CHGBODY | Milter.QUARANTINE | Milter.SETSYMLIST
MACROS = [
    "j", "i", "v", "{client_addr}", "{client_port}", "{daemon_name}", "{tls_version}",
    "{cipher}", "{auth_type}", "{auth_authen}", "{mail_addr}", "{mail_host}", "{rcpt_addr}", "r",
]


def note(*what):
    print(json.dumps(what), flush=True)


class Judge(Milter.Base):
    def negotiate(self, offered):
        note("negotiate", *offered)
        super().negotiate(offered)
        offered[0] &= ACTIONS
        if "insist" in OPTIONS:
            offered[0] |= Milter.ADDRCPT
        if "symbols" in OPTIONS:
            # Its own setsymlist hands bytes to a function that wants text.
            self._ctx.setsymlist(Milter.M_CONNECT, "j")
            self._ctx.setsymlist(Milter.M_EOH, "{r} i {unheard_of}")
        return Milter.CONTINUE

    def answer(self, *what):
        note(*what)
        return Milter.CONTINUE

    def macros(self):
        pairs = [(name, self.getsymval(name)) for name in MACROS]
        return {name: value for name, value in pairs if value is not None}

    def connect(self, name, family, address):
        self.todo = []
        return self.answer("connect", name, address, self.macros())

    def hello(self, name):
        note("hello", name)
        if name == "refused.example":
            return Milter.REJECT
        return Milter.CONTINUE

    def envfrom(self, path, *parameters):
        note("envfrom", path, *parameters)
        if path.startswith("<accepted@"):
            return Milter.ACCEPT
        if path.startswith("<later@"):
            return Milter.TEMPFAIL
        return Milter.CONTINUE

    def envrcpt(self, path, *parameters):
        note("envrcpt", path, *parameters)
        if path.startswith("<refused@"):
            return Milter.REJECT
        if path.startswith("<worded@"):
            self.setreply("550", "5.1.1", "No such person")
            return Milter.REJECT
        return Milter.CONTINUE

    def data(self):
        return self.answer("data")

    def header(self, name, value):
        if name == "X-Do":
            self.todo.append(value)
        return self.answer("header", name, value)

    def eoh(self):
        return self.answer("eoh", self.macros())

    def body(self, chunk):
        note("body", len(chunk), chunk[:60].decode("latin-1"))
        if "skip" in self.todo:
            return Milter.SKIP
        return Milter.CONTINUE

    def eom(self):
        note("eom", self.macros())
        verdict = Milter.CONTINUE
        for what in self.todo:
            if what == "add":
                self.addheader("X-Added", "one\n\ttwo")
            elif what == "insert":
                self.addheader("X-First", "here", 0)
            elif what == "change":
                self.chgheader("Subject", 1, "changed")
            elif what == "delete":
                self.chgheader("X-Old", 2, "")
            elif what == "replace":
                self.replacebody("new\r\n" * 30000)
            elif what == "quarantine":
                self.quarantine("looks odd")
            elif what == "progress":
                self.progress()
            elif what == "discard":
                verdict = Milter.DISCARD
            elif what == "reject":
                verdict = Milter.REJECT
            elif what == "reply":
                self.setreply("554", "5.7.1", "100%% certain", "of it")
                verdict = Milter.REJECT
        return verdict

    def abort(self):
        return self.answer("abort")

    def close(self):
        return self.answer("close")


class Quiet(Judge):
    connect = Milter.noreply(Judge.connect)
    envfrom = Milter.noreply(Judge.envfrom)
    envrcpt = Milter.noreply(Judge.envrcpt)
    data = Milter.noreply(Judge.data)
    header = Milter.noreply(Judge.header)
    eoh = Milter.noreply(Judge.eoh)
    body = Milter.noreply(Judge.body)

    # Marks the function itself, so it must be one of its own.
    @Milter.nocallback
    def hello(self, name):
        return Milter.CONTINUE


Milter.factory = Quiet if "quiet" in OPTIONS else Judge
Milter.runmilter("judge", f"inet:{PORT}@127.0.0.1", 60)
