"""Proxies: tinyproxy, stunnel in front of it, Dante, microsocks and V2Ray.

They connect from the address of this test process where they can be told to, so that a server sees who came by them.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from .daemon import ADDRESS, Daemon, own_name

# A name that no resolver knows but V2Ray's.
PRIVATE_NAME: Final = "server.test"
# A name that tinyproxy refuses to connect to, and an address that Dante refuses.
DENIED_NAME: Final = "denied.test"
DENIED_ADDRESS: Final = "127.0.0.9"


class Proxy(Daemon):
    """auth: the user and password to be used.  outgoing: the address that its connections come from."""

    auth: tuple[str, str] | None = None
    outgoing = ADDRESS


class TinyProxy(Proxy):
    """HTTP; refuses DENIED_NAME. With a password it asks for that."""

    program = package = "tinyproxy"

    def __init__(self, folder: Path, auth: tuple[str, str] | None = None) -> None:
        super().__init__(folder)
        self.auth = self._password = auth
        (self.folder / "filter").write_text(f"^{DENIED_NAME}$\n")

    def configuration(self) -> str:
        password = "BasicAuth {} {}".format(*self._password) if self._password else ""
        return f"""
Listen {self.address}
Port {self.port}
Bind {self.outgoing}
Bind ::1
Filter "filter"
{password}
"""

    def arguments(self) -> list[str]:
        return ["-d", "-c", "configuration"]

    def signal(self, number: signal.Signals) -> None:
        super().signal(number)
        # It looks whether it is to end, and then waits for a connection: between the two a signal goes unnoticed.
        self._accepts(self.port)


class Stunnel(Proxy):
    """TLS in front of whatever listens at an address and port."""

    program = package = "stunnel4"

    def __init__(self, folder: Path, behind: tuple[str, int], certificate: str) -> None:
        super().__init__(folder)
        self._behind = behind
        self._certificate = certificate

    def configuration(self) -> str:
        return f"""
foreground = yes
pid =
syslog = no
[proxy]
accept = {self.address}:{self.port}
connect = {self._behind[0]}:{self._behind[1]}
cert = {self._certificate}
TIMEOUTclose = 0
"""

    def arguments(self) -> list[str]:
        return ["configuration"]


class Dante(Proxy):
    """SOCKS4 and SOCKS5; refuses DENIED_ADDRESS."""

    program, package = "danted", "dante-server"
    address = outgoing = "127.0.0.1"  # it takes none that is not listed as an interface's own

    def configuration(self) -> str:
        return f"""
logoutput: stdout
internal: {self.address} port = {self.port}
external: {self.outgoing}
clientmethod: none
socksmethod: none
user.privileged: {own_name()}
user.unprivileged: {own_name()}
client pass {{
  from: 0.0.0.0/0 to: 0.0.0.0/0
}}
socks block {{
  from: 0.0.0.0/0 to: {DENIED_ADDRESS}/32
}}
socks pass {{
  from: 0.0.0.0/0 to: 0.0.0.0/0
  protocol: tcp
}}
"""

    def arguments(self) -> list[str]:
        return ["-f", "configuration", "-p", "pid"]


class MicroSocks(Proxy):
    """SOCKS5, with a password. outgoing=None: whichever address fits, for servers at IPv6 addresses too."""

    program = package = "microsocks"

    def __init__(self, folder: Path, auth: tuple[str, str], outgoing: str | None = ADDRESS) -> None:
        super().__init__(folder)
        self.auth = auth
        self._password = auth
        self._outgoing = outgoing

    def configuration(self) -> str:
        return ""

    def arguments(self) -> list[str]:
        options = {"-i": self.address, "-p": str(self.port), "-u": self._password[0], "-P": self._password[1]}
        if self._outgoing is not None:
            options["-b"] = self._outgoing
        return [word for option in options.items() for word in option]


class V2Ray(Proxy):
    """SOCKS4, 4a and 5, and names of its own: PRIVATE_NAME leads to the server, localhost to where nobody is."""

    program = package = "v2ray"

    def configuration(self) -> str:
        return json.dumps(
            {
                "log": {"loglevel": "info"},
                "dns": {"hosts": {PRIVATE_NAME: "127.0.0.1", "localhost": ADDRESS}},
                "inbounds": [{"listen": self.address, "port": self.port, "protocol": "socks"}],
                "outbounds": [
                    {"protocol": "freedom", "sendThrough": self.outgoing, "settings": {"domainStrategy": "UseIP"}}
                ],
                # By default it waits for a second after the server's end before it ends the client's side.
                "policy": {"levels": {"0": {"uplinkOnly": 0, "downlinkOnly": 0}}},
            }
        )

    def arguments(self) -> list[str]:
        return ["-config", "configuration", "-format", "json"]


class Way:
    """How a client reaches a server: by which proxy, with which of its schemes, and under which name of the server.

    proxy: None for a direct connection.  host: the server's name.  ca_file: of a proxy's own TLS.
    """

    def __init__(
        self, scheme: str = "", proxy: Proxy | None = None, host: str = "localhost", ca_file: str = ""
    ) -> None:
        self.scheme = scheme
        self.proxy = proxy
        self.host = host
        self._tls: dict[str, Any] = {"proxy_sslopt": {"ca_certs": ca_file}} if ca_file else {}

    @property
    def options(self) -> dict[str, Any]:
        """The options of connect() for it, as a URL."""
        if self.proxy is None:
            return {}
        password = "{}:{}@".format(*(quote(part, safe="") for part in self.proxy.auth)) if self.proxy.auth else ""
        return {"proxy": f"{self.scheme}://{password}{self.proxy.address}:{self.proxy.port}", **self._tls}

    @property
    def spelled_out(self) -> dict[str, Any]:
        """The same with websocket-client's names."""
        if self.proxy is None:
            return {}
        options = {
            "http_proxy_host": self.proxy.address,
            "http_proxy_port": self.proxy.port,
            "http_proxy_auth": self.proxy.auth,
            "proxy_type": self.scheme,
            **self._tls,
        }
        return {name: value for name, value in options.items() if value is not None}
