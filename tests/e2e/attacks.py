"""What a client can do to a server: one function each, given a fresh connection. Each ends its own connection.

The first group are the inputs that end the process of stock trio-websocket 0.12.2 under ``serve_websocket``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from tests.e2e.hostile import BINARY, CLOSE, PING, PONG, TEXT, Client, close, frame

MIB = 1 << 20
Attack = Callable[[Client], None]
ATTACKS: dict[str, Attack] = {}
#: Those that must be answered with a Close frame.
VIOLATIONS: list[str] = []


def attack(function: Attack) -> Attack:
    ATTACKS[function.__name__] = function
    return function


def refused(client: Client, request: bytes, status: bytes) -> None:
    """Send a request that must get this status and no upgrade."""
    client.send(request)
    assert client.read_head().split()[1] == status, client.answer
    client.close()


def upgraded(client: Client, request: bytes) -> None:
    """Send a request that must become a WebSocket that works."""
    client.send(request)
    assert client.read_head().split()[1] == b"101", client.answer
    assert client.echoes()
    client.close()


# -- heads that stock trio-websocket decodes without care ------------------------------------------------


@attack
def non_ascii_connection_header(client: Client) -> None:
    upgraded(client, client.head(Connection=b"Upgrade, \xff\xfe"))


@attack
def non_ascii_subprotocol(client: Client) -> None:
    upgraded(client, client.head(Sec_WebSocket_Protocol=b"caf\xe9"))


@attack
def non_ascii_extension(client: Client) -> None:
    upgraded(client, client.head(Sec_WebSocket_Extensions=b"permessage-d\xe9flate"))


@attack
def host_that_is_no_idna(client: Client) -> None:
    upgraded(client, client.head(Host=b"xn--a"))


@attack
def non_ascii_host(client: Client) -> None:
    upgraded(client, client.head(Host=b"\xff"))


@attack
def reset_after_a_rejected_handshake(client: Client) -> None:
    client.send(client.head(Sec_WebSocket_Version=b"7"))
    client.reset()


@attack
def reset_after_a_refusal_of_ours(client: Client) -> None:
    client.send(client.head(client.refused_path))
    client.reset()


@attack
def reset_after_the_handshake_request(client: Client) -> None:
    client.send(client.head())
    client.reset()


@attack
def pings_after_our_close(client: Client) -> None:
    client.open(client.closing_path).send(frame(TEXT, b"x"))
    received = client.first_but(PONG, TEXT)
    assert received is not None
    assert received.code == 4401
    client.send(frame(PING, b"p") * 100 + close(4401))
    assert client.rest() == b""


@attack
def pings_around_our_close(client: Client) -> None:
    client.open(client.closing_path).send(frame(PING) * 500 + frame(TEXT, b"x") + frame(PING) * 5000)
    received = client.first_but(PONG, TEXT)
    assert received is not None
    assert received.code == 4401
    client.close()


@attack
def too_big_after_our_close(client: Client) -> None:
    client.open(client.closing_path).send(frame(TEXT, b"x"))
    received = client.first_but(PONG, TEXT)
    assert received is not None
    assert received.code == 4401
    client.send(frame(BINARY, bytes(2 * MIB)) + close())
    assert client.rest() == b""


@attack
def frames_behind_a_refused_request(client: Client) -> None:
    client.send(client.head(client.refused_path) + frame(TEXT, b"x") * 10)
    assert client.read_head().split()[1] == b"401"
    assert client.rest()  # a 400 for what is no request


# -- other heads ------------------------------------------------------------------------------------------


@attack
def non_ascii_target(client: Client) -> None:
    refused(client, client.head(b"/live?t=\xe9"), b"400")


@attack
def a_head_without_end(client: Client) -> None:
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000)
    assert client.read_head().split()[1] == b"431"
    client.close()


@attack
def a_head_that_is_too_long(client: Client) -> None:
    refused(client, client.head(X=b"a" * 17_000), b"431")


@attack
def not_http(client: Client) -> None:
    refused(client, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400")


@attack
def a_head_drop_by_drop(client: Client) -> None:
    request = client.head(X=b"a" * 4000)
    client.sock.settimeout(0.05)
    answer = b""
    for at in range(len(request)):
        try:
            client.send(request[at : at + 1])
            answer = client.sock.recv(100)
        except TimeoutError:
            continue
        except OSError:
            break
        break
    assert not answer or answer.split()[1] == b"408"
    client.close()


@attack
def silence(client: Client) -> None:
    assert client.rest() == b""


@attack
def reset_within_a_head(client: Client) -> None:
    client.send(client.head()[:40])
    client.reset()


@attack
def end_within_a_head(client: Client) -> None:
    client.send(client.head()[:40])
    client.sock.shutdown(socket.SHUT_WR)
    client.rest()
    client.close()


@attack
def wrong_method(client: Client) -> None:
    refused(client, client.head().replace(b"GET", b"POST"), client.wrong_method_status)


@attack
def no_key(client: Client) -> None:
    refused(client, client.head(Sec_WebSocket_Key=None), b"400")


@attack
def bad_key(client: Client) -> None:
    refused(client, client.head(Sec_WebSocket_Key=b"\xff" * 24), b"400")


@attack
def two_keys(client: Client) -> None:
    refused(client, client.head(X=b"y\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="), b"400")


@attack
def no_version(client: Client) -> None:
    refused(client, client.head(Sec_WebSocket_Version=None), b"400")


@attack
def a_body_before_the_frames(client: Client) -> None:
    refused(client, client.head(Content_Length=b"5") + b"hello", b"400")


@attack
def http_1_0(client: Client) -> None:
    refused(client, client.head().replace(b"HTTP/1.1", b"HTTP/1.0"), b"400")


@attack
def no_upgrade(client: Client) -> None:
    refused(client, client.head(Upgrade=None), b"426")


@attack
def ten_thousand_query_fields(client: Client) -> None:
    refused(client, client.head("/live?" + "a&" * 5000), b"400")


@attack
def two_hundred_resets(client: Client) -> None:
    host, port = client.sock.getpeername()[:2]
    client.close()
    for _ in range(200):
        other = Client(socket.create_connection((host, port), timeout=20))
        other.send(client.head() + frame(TEXT, b"x"))
        other.reset()


# -- frames -----------------------------------------------------------------------------------------------


def violation(name: str, data: bytes, code: int) -> None:
    """A protocol error: the client gets a Close frame with this code, and the end of the connection."""

    def send(client: Client) -> None:
        client.open().send(data)
        assert client.close_code() == code

    send.__name__ = name
    VIOLATIONS.append(name)
    attack(send)


violation("reserved_bit", frame(TEXT, b"x", rsv=4), 1002)
violation("reserved_opcode", frame(3, b"x"), 1002)
violation("reserved_control_opcode", frame(11), 1002)
violation("unmasked_frame", frame(TEXT, b"x", mask=False), 1002)
violation("fragmented_ping", frame(PING, b"x", fin=False), 1002)
violation("ping_of_126_bytes", frame(PING, bytes(126)), 1002)
violation("continuation_of_nothing", frame(0, b"x"), 1002)
violation("message_within_a_message", frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002)
violation("length_of_2_to_the_63", frame(BINARY, announce=1 << 63), 1002)
violation("length_in_its_long_form", b"\x82\xff" + (5).to_bytes(8, "big") + bytes(9), 1002)
violation("close_of_one_byte", frame(CLOSE, b"\x03"), 1002)
violation("close_code_999", close(999), 1002)
violation("close_code_1005", close(1005), 1002)
violation("close_code_65535", close(65535), 1002)
violation("close_reason_that_is_no_utf_8", close(1000, b"\xff\xff"), 1007)
violation("bad_utf_8", frame(TEXT, b"ok \xc3\x28"), 1007)
violation("utf_8_that_ends_early", frame(TEXT, b"\xe2\x82"), 1007)
violation("bad_utf_8_in_a_fragment", frame(TEXT, b"\xff", fin=False), 1007)
violation("a_frame_over_the_limit", frame(BINARY, bytes(MIB + 1)), 1009)
violation("a_much_bigger_frame", frame(BINARY, bytes(8 * MIB)), 1009)
violation("a_gigabyte_announced", frame(BINARY, bytes(5000), announce=1 << 30), 1009)
violation("fragments_over_the_limit", frame(BINARY, bytes(MIB // 2), fin=False) + frame(0, bytes(MIB // 2 + 1)), 1009)
violation("a_flood_of_empty_fragments", frame(TEXT, fin=False) + frame(0, fin=False) * 200_000, 1009)
violation("bytes_that_are_no_frame", b"GET / HTTP/1.1\r\n\r\n", 1002)


@attack
def a_violation_that_nobody_reads(client: Client) -> None:
    client.open().send(frame(BINARY, announce=1 << 40))
    client.reset()


@attack
def a_message_byte_by_byte(client: Client) -> None:
    client.open()
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    words = client.long_request(6000)
    for byte in frame(TEXT, words):
        client.send(bytes((byte,)))
    received = client.receive()
    assert received is not None
    assert client.answers(words, received.payload)
    client.close()


@attack
def pings_whose_pongs_nobody_reads(client: Client) -> None:
    """The server stops reading once its pongs are not taken: what it lets in is bounded by the kernel's buffers."""
    client.open()
    client.sock.settimeout(0.5)
    pings, sent = frame(PING, bytes(125)) * 1000, 0
    try:
        while sent < 256 * MIB:
            sent += client.sock.send(pings)
    except (TimeoutError, ConnectionError):
        pass
    assert sent < 64 * MIB
    client.close()


@attack
def messages_whose_echoes_nobody_reads(client: Client) -> None:
    client.open()
    client.sock.settimeout(0.5)
    message, sent = frame(TEXT, client.long_request(MIB)), 0
    try:
        while sent < 256 * MIB:
            sent += client.sock.send(message)
    except (TimeoutError, ConnectionError):
        pass
    assert sent < 64 * MIB
    client.reset()


@attack
def events_that_nobody_reads(client: Client) -> None:
    """The server gives up by itself: its descriptors go back although the client never closes."""
    client.open("/flood")
    LEFT_OPEN.append(client)


@attack
def half_a_frame_and_silence(client: Client) -> None:
    client.open().send(frame(BINARY, bytes(1000), announce=MIB))
    client.reset()


@attack
def a_close_and_more(client: Client) -> None:
    client.open().send(close() + frame(PING) * 1000 + bytes(100_000))
    received = client.receive()
    assert received is not None
    assert received.code == 1000
    client.close()


#: Clients that neither read nor close; they live until the tests are over.
LEFT_OPEN: list[Client] = []
