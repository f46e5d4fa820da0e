"""What a multipart/form-data body asks for, and the forms that are refused."""

import pytest

from extauthz.domain.ask import Ask, Unreadable
from extauthz.domain.body import VIDEO_SECONDS_USUAL, read_ask
from extauthz.domain.endpoints import Endpoint
from extauthz.domain.forms import PART_HEAD_BYTES_MAX, PARTS_MAX
from extauthz.domain.prices import Units

BOUNDARY = "----WebKitFormBoundary7MA4YWxk"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"
SOUND = bytes(range(256)) * 4


def part(head: str, content: bytes) -> bytes:
    """Write a part with these headers."""
    return f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + content + b"\r\n"


def field(name: str, value: str) -> bytes:
    """Write a field."""
    return part(f'Content-Disposition: form-data; name="{name}"', value.encode())


def file(name: str = "file", content: bytes = SOUND) -> bytes:
    """Write a file."""
    return part(f'Content-Disposition: form-data; name="{name}"; filename="a.mp3"\r\nContent-Type: audio/mpeg', content)


def form(*parts: bytes) -> bytes:
    """Write a whole form."""
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def read(
    raw: bytes, *, endpoint: Endpoint = Endpoint.TRANSCRIPTIONS, truncated: bool = False, content_type: str = TYPE
) -> Ask | Unreadable:
    """Read a form."""
    return read_ask(raw, truncated=truncated, endpoint=endpoint, content_type=content_type)


def ask(*parts: bytes, endpoint: Endpoint = Endpoint.TRANSCRIPTIONS) -> Ask:
    """Read a form that is readable."""
    found = read(form(*parts), endpoint=endpoint)
    assert isinstance(found, Ask), found
    return found


def test_a_transcription() -> None:
    """Fields are text, a file is counted and never looked into."""
    found = ask(
        field("model", "whisper-1"),
        field("stream", "true"),
        field("user", "ana"),
        field("prompt", "hé"),
        field("timestamp_granularities[]", "word"),
        field("timestamp_granularities[]", "segment"),
        file(),
    )

    assert found == Ask(
        models=("whisper-1",),
        stream=True,
        end_user="ana",
        text_bytes=len("whisper-1") + 3 + len("ana") + 3 + len("word") + len("segment"),
        file_bytes=len(SOUND),
    )


def test_pictures() -> None:
    """Pictures are made as often as `n` says, and every file is one that is read."""
    found = ask(
        field("model", "gpt-image-1"),
        field("n", "3"),
        field("prompt", "a cat"),
        file("image[]"),
        file("image[]"),
        file("mask"),
        endpoint=Endpoint.IMAGE_EDITS,
    )

    assert (found.units, found.images, found.file_bytes) == (Units(images=3), 3, 3 * len(SOUND))


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ((), VIDEO_SECONDS_USUAL),
        ((field("seconds", "4"),), 4),
    ],
)
def test_a_film(fields: tuple[bytes, ...], seconds: int) -> None:
    """A film is as long as it is asked for, or as such films usually are."""
    found = ask(field("model", "sora-2"), field("prompt", "x"), *fields, endpoint=Endpoint.VIDEOS)

    assert found.units == Units(milliseconds=seconds * 1000)


@pytest.mark.parametrize(
    "content_type",
    [
        TYPE,
        f"Multipart/Form-Data;boundary={BOUNDARY}",
        f'multipart/form-data; boundary="{BOUNDARY}"',
        f"multipart/form-data; Boundary={BOUNDARY} ",
    ],
)
def test_ways_to_name_the_boundary(content_type: str) -> None:
    """One boundary, quoted or not."""
    assert isinstance(read(form(field("model", "m")), content_type=content_type), Ask)


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        f"{TYPE}; boundary={BOUNDARY}",
        f"multipart/form-data; boundary=other; boundary={BOUNDARY}",
        f"multipart/form-data; charset=utf-8; boundary={BOUNDARY}",
        f"{TYPE}; charset=utf-16",
        f"{TYPE}, {TYPE}",
        f"multipart/form-data; boundary*=utf-8''{BOUNDARY}",
        f"multipart/form-data; boundary={BOUNDARY}x",
        f"multipart/form-data; boundary={'b' * 71}",
        f"multipart/mixed; boundary={BOUNDARY}",
        "application/x-www-form-urlencoded",
    ],
)
def test_other_types(content_type: str) -> None:
    """Two boundaries, none, or anything that a parser may leave out is refused."""
    assert isinstance(read(form(field("model", "m")), content_type=content_type), Unreadable)


HEAD = 'Content-Disposition: form-data; name="model"'


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(form(), id="no part"),
        pytest.param(form(field("prompt", "x")), id="no model"),
        pytest.param(form(field("model", "free"), field("model", "paid")), id="two models"),
        pytest.param(form(field("model", "free"), field("Model", "paid")), id="another case"),
        pytest.param(form(field("model[]", "paid")), id="a list of models"),
        pytest.param(form(field("model", "free"), field("model[]", "paid")), id="a list beside it"),
        pytest.param(form(field("model", "m"), field("n", "2"), field("n", "3")), id="two numbers"),
        pytest.param(form(field("model", "m"), field("n", "two")), id="no number"),
        pytest.param(form(field("model", "m"), field("n", "9" * 30)), id="a huge number"),
        pytest.param(form(field("model", "m"), field("n", "\u0662")), id="a digit of another alphabet"),
        pytest.param(form(field("model", "m"), field("stream", "1")), id="no flag"),
        pytest.param(form(field("model", "m"), field("fallbacks", "paid")), id="fallbacks"),
        pytest.param(form(field("model", "m"), field("extra_body", "{}")), id="overlaid"),
        pytest.param(form(file("model")), id="the model is a file"),
        pytest.param(form(part(f"{HEAD}; filename*=utf-8''x", b"m")), id="a file by another name"),
        pytest.param(form(part('Content-Disposition: form-data; name="x"; name="model"', b"m")), id="two names"),
        pytest.param(form(part("Content-Disposition: form-data; name=model", b"m")), id="no quotes"),
        pytest.param(form(part('Content-Disposition: form-data; name="mo\\del"', b"m")), id="a backslash"),
        pytest.param(
            form(part('Content-Disposition: form-data; name="x"; filename="a\\"; name="model"', b"m")), id="q"
        ),
        pytest.param(form(part('Content-Disposition: form-data; filename="a"; name="model"', b"m")), id="file first"),
        pytest.param(
            form(part("Content-Disposition: form-data; name*=utf-8''model", b"m")), id="a name in other words"
        ),
        pytest.param(form(part('Content-Disposition: attachment; name="model"', b"m")), id="no form-data"),
        pytest.param(form(part(f"{HEAD}\r\n{HEAD}", b"m")), id="two dispositions"),
        pytest.param(form(part(f"{HEAD}\r\n folded: x", b"m")), id="a folded line"),
        pytest.param(form(part(f"{HEAD}\r\nX-Other: x", b"m")), id="another header"),
        pytest.param(form(part(f"{HEAD}\r\nContent-Transfer-Encoding: base64", b"bQ==")), id="encoded"),
        pytest.param(form(part(f"{HEAD}\r\nContent-Type: text/plain; charset=utf-16", b"m")), id="another charset"),
        pytest.param(form(part(f"{HEAD}\r\nContent-Type: image/png", b"m")), id="a picture that is no file"),
        pytest.param(form(part(HEAD + " " * PART_HEAD_BYTES_MAX, b"m")), id="a long head"),
        pytest.param(form(part("", b"m")), id="no header"),
        pytest.param(form(part(HEAD, b"\xff")), id="no UTF-8"),
        pytest.param(form(field("model", "m"), *[field("x", "y")] * (PARTS_MAX + 1)), id="many parts"),
        pytest.param(b"preamble\r\n" + form(field("model", "m")), id="a preamble"),
        pytest.param(b"\r\n" + form(field("model", "m")), id="an empty line before"),
        pytest.param(form(field("model", "m")) + b"epilogue", id="an epilogue"),
        pytest.param(form(field("model", "m")) + form(field("model", "paid")), id="a second form"),
        pytest.param(field("model", "m"), id="no end"),
        pytest.param(form(field("model", "m")).replace(b"\r\n", b"\n"), id="bare line feeds"),
        pytest.param(form(field("model", f"m\n--{BOUNDARY}--")), id="a boundary behind a line feed"),
        pytest.param(
            form(field("model", "m"), field("x", f'y\n--{BOUNDARY}\nContent-Disposition: form-data; name="model"')),
            id="a part behind a line feed",
        ),
        pytest.param(form(field("model", f"m\r\n--{BOUNDARY} \r\nx")), id="a boundary with a space"),
        pytest.param(form(field("model", f"m\r\n--{BOUNDARY}x")), id="a longer boundary"),
        pytest.param(form(field("x", f"--{BOUNDARY}"), field("model", "m")), id="a boundary in a value"),
        pytest.param(b'{"model":"m"}', id="JSON"),
    ],
)
def test_what_is_no_unambiguous_form(raw: bytes) -> None:
    """Two parsers must not be able to read a form differently; the reason does not quote it."""
    found = read(raw)

    assert isinstance(found, Unreadable)
    assert "paid" not in found.message


def test_json_where_forms_are_taken() -> None:
    """Clients that have no file to send write JSON, and numbers as texts where OpenAI's do."""
    found = read(
        b'{"model":"sora-2","prompt":"x","seconds":"12"}',
        endpoint=Endpoint.VIDEOS,
        content_type="application/json",
    )

    assert isinstance(found, Ask)
    assert found.units == Units(milliseconds=12_000)


def test_a_form_where_none_is_taken() -> None:
    """A chat is no form, whatever an upstream might make of one."""
    found = read(form(field("model", "m")), endpoint=Endpoint.CHAT_COMPLETIONS)

    assert isinstance(found, Unreadable)
    assert "application/json" in found.message


def test_a_form_cut_at_every_byte() -> None:
    """Cut anywhere, a form is refused or says nothing that the whole one does not say."""
    raw = form(field("model", "whisper-1"), field("n", "12"), field("prompt", "grüße"), file())
    whole = read(raw)
    assert isinstance(whole, Ask)
    named = len(field("model", "whisper-1")) + len(BOUNDARY)

    for cut in range(len(raw) + 1):
        found = read(raw[:cut], truncated=True)
        assert isinstance(found, Ask) or cut < named + 4, cut
        if isinstance(found, Ask):
            assert found.truncated
            assert found.models == whole.models
            assert found.choices in (1, whole.choices)
            assert found.file_bytes <= whole.file_bytes + 4 + len(BOUNDARY)
            assert found.text_bytes <= cut
        assert isinstance(read(raw[:cut]), Unreadable) or cut >= len(raw) - 2


def test_a_file_before_its_model() -> None:
    """A model that stands behind the end of what is seen is not known: the reason says what helps."""
    found = read(file()[:-100], truncated=True)

    assert isinstance(found, Unreadable)
    assert "put `model` first" in found.message
