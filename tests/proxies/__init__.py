"""Proxies and reverse proxies that others wrote, started by the tests."""

from .client import Client
from .daemon import ADDRESS, Daemon
from .forward import (
    DENIED_ADDRESS,
    DENIED_NAME,
    PRIVATE_NAME,
    Dante,
    MicroSocks,
    Proxy,
    Stunnel,
    TinyProxy,
    V2Ray,
    Way,
)
from .reverse import HAProxy, Nginx, ReverseProxy

__all__ = [
    "ADDRESS",
    "DENIED_ADDRESS",
    "DENIED_NAME",
    "PRIVATE_NAME",
    "Client",
    "Daemon",
    "Dante",
    "HAProxy",
    "MicroSocks",
    "Nginx",
    "Proxy",
    "ReverseProxy",
    "Stunnel",
    "TinyProxy",
    "V2Ray",
    "Way",
]
