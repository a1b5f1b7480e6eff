"""Reverse proxies: nginx and HAProxy, with ws at one port and wss at another, in front of a plain server."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from ..conftest import PATIENCE, wait_until
from .daemon import ADDRESS, Daemon


class ReverseProxy(Daemon):
    """In front of the server at a port of 127.0.0.1, which may change before reload().

    certificate: the file of the certificate and key for wss.  idle: the time without data after which it ends a
    connection, such as "1s".
    """

    ports = 2

    def __init__(self, folder: Path, certificate: str, server_port: int, idle: str = "60s") -> None:
        super().__init__(folder)
        self.certificate = certificate
        self.server_port = server_port
        self.idle = idle

    def url(self, scheme: str) -> str:
        return f"{scheme}://{self.address}:{self.other_ports[0] if scheme == 'wss' else self.port}/"

    def reload(self) -> None:
        """Take the changed configuration for new connections; old ones stay as they are."""
        raise NotImplementedError


class Nginx(ReverseProxy):
    program = package = "nginx"

    def configuration(self) -> str:
        user = "user root;" if os.geteuid() == 0 else ""  # or its workers could not enter the folder
        temporary = "".join(
            f"{kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return f"""
daemon off;
{user}
pid pid;
error_log stderr notice;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
  access_log off;
  {temporary}
  server {{
    listen {self.address}:{self.port};
    listen {self.address}:{self.other_ports[0]} ssl;
    ssl_certificate {self.certificate};
    ssl_certificate_key {self.certificate};
    location / {{
      proxy_pass http://127.0.0.1:{self.server_port};
      proxy_bind {ADDRESS};
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection upgrade;
      proxy_read_timeout {self.idle};
    }}
  }}
}}
"""

    def arguments(self) -> list[str]:
        return ["-e", "stderr", "-p", ".", "-c", "configuration"]

    def reload(self) -> None:
        self.configure()
        self.signal(signal.SIGHUP)


class HAProxy(ReverseProxy):
    program = package = "haproxy"
    ports = 3  # the third is for commands

    def configuration(self) -> str:
        return f"""
global
  maxconn 200
defaults
  mode http
  retries 0
  timeout connect 20s
  timeout client 60s
  timeout server {self.idle}
  timeout tunnel {self.idle}
frontend front
  bind {self.address}:{self.port}
  bind {self.address}:{self.other_ports[0]} ssl crt {self.certificate}
  default_backend back
backend back
  source {ADDRESS}
  server one 127.0.0.1:{self.server_port}
"""

    def arguments(self) -> list[str]:
        return ["-W", "-db", "-f", "configuration", "-S", f"{self.address}:{self.other_ports[1]}"]

    def reload(self) -> None:
        self.configure()
        # After its start it executes itself once more, and what comes before that is lost, SIGUSR2 also.
        wait_until(lambda: self._command("show version; quit"), "haproxy obeys")
        self._command("reload")

    def _command(self, command: str) -> bytes:
        """The answer to a command; nothing where it is just executing itself."""
        answer = b""
        try:
            with socket.create_connection((self.address, self.other_ports[1]), PATIENCE) as connection:
                connection.sendall(f"{command}\n".encode())
                while data := connection.recv(1 << 16):
                    answer += data
        except ConnectionError:
            pass  # it executes itself anew
        return answer
