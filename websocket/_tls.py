"""From the `sslopt` dict to an SSL context, and from OpenSSL's errors to ones that say what to do."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from ._exceptions import WebSocketCertificateException, WebSocketException, WebSocketTLSException
from ._logging import warning
from ._ssl_compat import HAVE_SSL, SSLEOFError, ssl

# Every key that websocket-client knows. do_handshake_on_connect is taken and has no effect: the opening
# handshake follows at once and needs TLS.
KNOWN_OPTIONS = frozenset(
    {
        "ca_cert_path",
        "ca_certs",
        "cert_chain",
        "cert_reqs",
        "certfile",
        "check_hostname",
        "ciphers",
        "context",
        "do_handshake_on_connect",
        "ecdh_curve",
        "keyfile",
        "password",
        "server_hostname",
        "ssl_version",
        "suppress_ragged_eofs",
    }
)

# X509_V_ERR_*: what OpenSSL found wrong with a certificate, in groups that ask for the same remedy.
_EXPIRED, _NOT_YET_VALID = 10, 9
_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21, 24, 26, 27})
_WRONG_HOST = frozenset({62, 64})


def create_context(sslopt: Mapping[str, Any], option: str = "sslopt") -> ssl.SSLContext:
    """The context that `sslopt` describes: certificates and host names are verified unless it says otherwise, and
    TLS 1.2 is the least. option: where it comes from, for messages.

    Raises WebSocketException (for files: with their names) for what cannot be used, ValueError for values that
    make no sense.
    """
    if not HAVE_SSL:
        raise WebSocketException("SSL not available: this Python was built without the ssl module; use ws://")
    for key in sslopt.keys() - KNOWN_OPTIONS:
        warning("%s has no key %r; known are %s", option, key, ", ".join(sorted(KNOWN_OPTIONS)))
    if (context := sslopt.get("context")) is not None:
        if not isinstance(context, ssl.SSLContext):
            raise ValueError(f"{option}['context'] must be an ssl.SSLContext, not {context!r}")
        for key in sslopt.keys() - {"context", "server_hostname", "suppress_ragged_eofs", "do_handshake_on_connect"}:
            warning("%s[%r] has no effect beside its 'context', which says it all", option, key)
        return context
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _apply_version(context, sslopt.get("ssl_version"), option)
    context.options |= ssl.OP_NO_RENEGOTIATION  # a write must never wait for a read
    context.set_alpn_protocols(["http/1.1"])
    if keylog := os.environ.get("SSLKEYLOGFILE"):
        _use_files("SSLKEYLOGFILE", lambda: setattr(context, "keylog_filename", keylog))
    _apply_verification(context, sslopt, option)
    _apply_client_certificate(context, sslopt, option)
    if ciphers := sslopt.get("ciphers"):
        _use_value(f"{option}['ciphers']", ciphers, lambda: context.set_ciphers(ciphers))
    if curve := sslopt.get("ecdh_curve"):
        _use_value(f"{option}['ecdh_curve']", curve, lambda: context.set_ecdh_curve(curve))
    return context


def _apply_version(context: ssl.SSLContext, version: Any, option: str) -> None:
    if version is None or version in (ssl.PROTOCOL_TLS, ssl.PROTOCOL_TLS_CLIENT):
        return
    if version == ssl.PROTOCOL_TLSv1_2:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        return
    raise ValueError(f"{option}['ssl_version']={version!r} is not supported; leave it out for TLS 1.2 and 1.3")


def _apply_verification(context: ssl.SSLContext, sslopt: Mapping[str, Any], option: str) -> None:
    cert_reqs = sslopt.get("cert_reqs", ssl.CERT_REQUIRED)
    if cert_reqs not in (ssl.CERT_NONE, ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED):
        raise ValueError(f"{option}['cert_reqs'] must be one of ssl.CERT_*, not {cert_reqs!r}")
    if cert_reqs == ssl.CERT_NONE and sslopt.get("check_hostname"):
        raise ValueError(
            f"{option}['check_hostname']=True needs a verified certificate, and {option}['cert_reqs'] is CERT_NONE"
        )
    context.check_hostname = cert_reqs != ssl.CERT_NONE and bool(sslopt.get("check_hostname", True))
    context.verify_mode = cert_reqs
    if cert_reqs == ssl.CERT_NONE:
        return
    cafile, capath = sslopt.get("ca_certs"), sslopt.get("ca_cert_path")
    bundle = os.environ.get("WEBSOCKET_CLIENT_CA_BUNDLE")
    if bundle and os.path.isdir(bundle) and not capath:
        _load_authorities(context, "WEBSOCKET_CLIENT_CA_BUNDLE", capath=bundle)
    elif bundle and not os.path.isdir(bundle) and not cafile:
        _load_authorities(context, "WEBSOCKET_CLIENT_CA_BUNDLE", cafile=bundle)
    elif not cafile and not capath:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if cafile:
        _load_authorities(context, f"{option}['ca_certs']", cafile=cafile)
    if capath:
        _load_authorities(context, f"{option}['ca_cert_path']", capath=capath)


def _load_authorities(context: ssl.SSLContext, key: str, **where: str) -> None:
    def load() -> None:
        if "capath" in where:
            os.listdir(where["capath"])  # OpenSSL looks into the folder later, and misses it without a word
        context.load_verify_locations(**where)

    _use_files(key, load, *where.values())


def _apply_client_certificate(context: ssl.SSLContext, sslopt: Mapping[str, Any], option: str) -> None:
    if certfile := sslopt.get("certfile"):
        keyfile, password = sslopt.get("keyfile"), sslopt.get("password")
        _load_chain(context, f"{option}['certfile']", certfile, keyfile, password)
    if chain := sslopt.get("cert_chain"):
        _load_chain(context, f"{option}['cert_chain']", *chain)


def _load_chain(context: ssl.SSLContext, key: str, certfile: Any, keyfile: Any = None, password: Any = None) -> None:
    def ask() -> str:  # OpenSSL's own way would be to ask at the terminal
        raise WebSocketTLSException(f"{key}: the key in {keyfile or certfile!r} is encrypted; give its password")

    _use_files(key, lambda: context.load_cert_chain(certfile, keyfile, password or ask), certfile, keyfile)


def _use_files(key: str, use: Callable[[], object], *names: Any) -> None:
    """Call `use`, which reads these files; raise an error that names the key and what cannot be read."""
    try:
        for name in names:
            if name is not None:
                os.stat(name)
        use()
    except WebSocketTLSException:
        raise
    except OSError as error:
        listed = " with ".join(repr(name) for name in names if name is not None)
        what = repr(error.filename) if error.filename else listed
        raise WebSocketTLSException(f"{key}: cannot load {what}: {error.strerror or error}") from error


def _use_value(key: str, value: Any, use: Callable[[], object]) -> None:
    try:
        use()
    except (ssl.SSLError, ValueError, TypeError) as error:
        raise ValueError(f"{key}={value!r} is not usable: {error}") from error


def explain(error: OSError, host: str, option: str = "sslopt") -> WebSocketTLSException:
    """The package's exception for a TLS handshake with `host` that failed: what is wrong, and which key of which
    option concerns it."""
    peer, scheme = ("server", "ws") if option == "sslopt" else ("proxy", "http")
    if not isinstance(error, ssl.SSLCertVerificationError):
        reason = getattr(error, "reason", None) or error.strerror or str(error)
        remedy = f"; does the {peer} speak TLS on this port? {scheme}:// is for one that does not"
        hint = remedy if isinstance(error, SSLEOFError) or reason == "WRONG_VERSION_NUMBER" else ""
        return WebSocketTLSException(f"TLS handshake with {host} failed: {reason}{hint}")
    code = error.verify_code
    if code == _EXPIRED:
        what = f"has expired; the {peer} needs a new one"
    elif code == _NOT_YET_VALID:
        what = "is not valid yet; check this machine's clock"
    elif code in _WRONG_HOST:
        what = f"is for another host than {host!r}; connect by its own name, or name it in {option}['server_hostname']"
    elif code in _UNKNOWN_ISSUER:
        what = (
            f"is from an unknown issuer; name its CA in {option}['ca_certs'] or in the environment's"
            " WEBSOCKET_CLIENT_CA_BUNDLE"
        )
    else:
        what = "was refused"
    result = WebSocketCertificateException(f"certificate of {host} {what} ({error.verify_message})")
    result.verify_code = code
    result.verify_message = error.verify_message
    return result
