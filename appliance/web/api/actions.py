"""``/action/user_account/…`` and ``/setup``: accounts are made and users let in, in the shapes of Daptin."""

from __future__ import annotations

import html
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response

from appliance.errors import BadJson, BadRequest, RequestError, TooLarge, UnsupportedMedia
from appliance.live.session.accounts import Accounts
from appliance.model import JSON
from appliance.protocol.json import decode, encode
from appliance.protocol.wording import kind, quote, unknown
from appliance.web.api.caller import address_of
from appliance.web.api.entrance import Entrance

_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"
#: What a browser is to keep of the page and of the answers: nothing.
_PRIVATE: Final = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
_PAGE_HEADERS: Final = {
    **_PRIVATE,
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
}
_FIELDS_LIMIT: Final = 16
#: The longest body, bytes: a few short fields need no more, and anybody may send one.
BODY_LIMIT: Final = 16 << 10


@dataclass(frozen=True, slots=True)
class Form:
    """The attributes that an action takes: those that must be there, and those that may."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


SIGN_UP: Final = Form(("email", "password"), ("name", "passwordConfirm"))
SIGN_IN: Final = Form(("email", "password"))
_SET_UP: Final = Form(("email", "password"), ("name",))


@dataclass(frozen=True, slots=True)
class Actions:
    """Answers for accounts."""

    accounts: Accounts
    entrance: Entrance

    async def sign_up(self, request: Request) -> Response:
        """Make an account. Raises ``RequestError``."""
        self.entrance.anybody(request)
        given = _attributes(await _json(request), SIGN_UP)
        if given.get("passwordConfirm", given["password"]) != given["password"]:
            raise BadRequest("the two passwords are not the same")
        await self.accounts.sign_up(
            given["email"], given["password"], name=given.get("name", ""), client=address_of(request)
        )
        return _done([_notice("The account is made; sign in with it")])

    async def sign_in(self, request: Request) -> Response:
        """Give a token. Raises ``RequestError``."""
        self.entrance.anybody(request)
        given = _attributes(await _json(request), SIGN_IN)
        token = await self.accounts.sign_in(given["email"], given["password"], client=address_of(request))
        return _signed_in(token)

    async def setup(self, request: Request) -> Response:
        """Show the page of the link that ``serve`` printed, or make the first administrator's account with it."""
        self.entrance.anybody(request)
        if request.method in ("GET", "HEAD"):
            code = request.query_params.get("code", "")
            return Response(_page(_form(code)), headers=_PAGE_HEADERS, media_type="text/html")
        if _media_type(request) != _FORM:
            given = _attributes(await _json(request), _SET_UP, beside=("code",))
            return _signed_in(await self._set_up(request, given))
        fields = _fields(await _body(request))
        try:
            await self._set_up(request, fields)
        except RequestError as error:
            shown = f"<p class=error>{html.escape(error.message)}</p>{_form(fields['code'])}"
            return Response(_page(shown), error.status, _PAGE_HEADERS, "text/html")
        return Response(_page(_MADE), headers=_PAGE_HEADERS, media_type="text/html")

    async def _set_up(self, request: Request, given: dict[str, str]) -> str:
        return await self.accounts.set_up(
            given["code"], given["email"], given["password"], name=given.get("name", ""), client=address_of(request)
        )


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _body(request: Request) -> bytes:
    """Read a body. Raises ``TooLarge``, before more of it is kept than may be."""
    body = b""
    async with aclosing(request.stream()) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > BODY_LIMIT:
                raise TooLarge(f"the body of a request to this path may have {BODY_LIMIT} bytes")
    return body


async def _json(request: Request) -> dict[str, JSON]:
    if _media_type(request) != _JSON:
        raise UnsupportedMedia(f'send {{"attributes":{{…}}}} with Content-Type: {_JSON}')
    given = decode(await _body(request))
    if not isinstance(given, dict):
        raise BadRequest(f'this is an object with "attributes", not {kind(given)}')
    return given


def _attributes(given: dict[str, JSON], form: Form, *, beside: tuple[str, ...] = ()) -> dict[str, str]:
    """Give the attributes, and what stands ``beside`` them. Raises ``BadRequest``; no message holds a value."""
    attributes = given.get("attributes")
    if not isinstance(attributes, dict):
        raise BadRequest('"attributes" must be there and be an object')
    found: dict[str, str] = {}
    for name in (*form.required, *beside):
        if name not in (given if name in beside else attributes):
            raise BadRequest(f"{quote(name)} must be given")
    for name, value in (*attributes.items(), *((name, given[name]) for name in beside)):
        if name not in (*form.required, *form.optional, *beside):
            raise BadRequest(unknown(name, "an attribute here", (*form.required, *form.optional)))
        if not isinstance(value, str):
            raise BadRequest(f"{quote(name)} is a string, not {kind(value)}")
        found[name] = value
    return found


def _fields(body: bytes) -> dict[str, str]:
    """Read the form's fields; each that is not there is empty. Raises ``BadJson`` for what is no form."""
    try:
        found = parse_qs(body.decode(), max_num_fields=_FIELDS_LIMIT, errors="strict")
    except ValueError:
        raise BadJson("this is not the form of this page") from None
    return {name: found.get(name, [""])[0] for name in ("code", "email", "password", "name")}


def _signed_in(token: str) -> Response:
    kept: JSON = {"ResponseType": "client.store.set", "Attributes": {"key": "token", "value": token}}
    return _done([kept, _notice("Signed in")])


def _notice(message: str) -> dict[str, Any]:
    return {
        "ResponseType": "client.notify",
        "Attributes": {"type": "success", "title": "Success", "message": message},
    }


def _done(responses: list[JSON]) -> Response:
    return Response(encode(responses), headers=_PRIVATE, media_type=_JSON)


_MADE: Final = "<p>The administrator's account is made. Sign in with it; this link is of no use any more.</p>"


def _form(code: str) -> str:
    return f"""<form method=post action=/setup>
<input type=hidden name=code value="{html.escape(code)}">
<label>E-mail address <input name=email type=email required autocomplete=username></label>
<label>Name <input name=name autocomplete=name></label>
<label>Password, 8 bytes at least <input name=password type=password required autocomplete=new-password></label>
<button>Make the account</button>
</form>"""


def _page(content: str) -> str:
    return f"""<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>live-appliance: the first administrator</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 24rem; margin: 4rem auto; padding: 0 1rem }}
label, button {{ display: block; margin: 1rem 0 }}
input {{ display: block; width: 100%; box-sizing: border-box; font: inherit; padding: .4rem }}
button {{ font: inherit; padding: .5rem 1rem }}
.error {{ color: #b00020 }}
</style>
<h1>The first administrator</h1>
{content}
</html>
"""
