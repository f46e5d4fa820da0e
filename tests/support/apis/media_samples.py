"""Calls for pictures, sound and film."""

from __future__ import annotations

from extauthz.domain.endpoints import Endpoint
from tests.support.apis import openai_media as media
from tests.support.apis.asking import PROMPT, posted, uploaded
from tests.support.apis.sample import Due, Sample, constant, id_of
from tests.support.apis.used import Used

PICTURES = Used(images=2)
SKETCH = Used(text_input=31, image_input=9, image_output=60)
SPOKEN = Used(text_input=12, text_output=90)
HEARD = Used(text_input=4, audio_input=45, text_output=20)
TIMED = Used(heard_milliseconds=12_500)
FILM_SECONDS = 4
FILM = Used(made_milliseconds=FILM_SECONDS * 1000)
SPOKEN_TEXT = "Every budget has its end."

MEDIA = (
    Sample(
        "images",
        Endpoint.IMAGE_GENERATIONS,
        posted("/v1/images/generations", model="painter", prompt=PROMPT, n=2),
        constant(media.images(PICTURES, usage=False)),
        "painter",
        PICTURES,
    ),
    Sample(
        "images by tokens",
        Endpoint.IMAGE_GENERATIONS,
        posted("/v1/images/generations", model="sketcher", prompt=PROMPT),
        constant(media.images(SKETCH, usage=True)),
        "sketcher",
        SKETCH,
    ),
    Sample(
        "images stream",
        Endpoint.IMAGE_GENERATIONS,
        posted("/v1/images/generations", model="sketcher", prompt=PROMPT, stream=True, partial_images=3),
        constant(media.images_stream(SKETCH, "image_generation")),
        "sketcher",
        SKETCH,
        streamed=True,
    ),
    Sample(
        "image edit",
        Endpoint.IMAGE_EDITS,
        uploaded("/v1/images/edits", file="image", model="sketcher", prompt=PROMPT),
        constant(media.images(SKETCH, usage=True)),
        "sketcher",
        SKETCH,
    ),
    Sample(
        "image edit stream",
        Endpoint.IMAGE_EDITS,
        uploaded("/v1/images/edits", file="image", model="sketcher", prompt=PROMPT, stream="true"),
        constant(media.images_stream(SKETCH, "image_edit")),
        "sketcher",
        SKETCH,
        streamed=True,
    ),
    Sample(
        "image variations",
        Endpoint.IMAGE_VARIATIONS,
        uploaded("/v1/images/variations", file="image", model="painter", n="2"),
        constant(media.images(PICTURES, usage=False)),
        "painter",
        PICTURES,
    ),
    Sample(
        "speech",
        Endpoint.SPEECH,
        posted("/v1/audio/speech", model="speaker", input=SPOKEN_TEXT, voice="alloy"),
        constant(media.speech()),
        "speaker",
        Used(characters=len(SPOKEN_TEXT)),
    ),
    Sample(
        "speech by tokens",
        Endpoint.SPEECH,
        posted("/v1/audio/speech", model="announcer", input=SPOKEN_TEXT, voice="alloy"),
        constant(media.speech()),
        "announcer",
        due=Due.HELD,
    ),
    Sample(
        "speech stream",
        Endpoint.SPEECH,
        posted("/v1/audio/speech", model="announcer", input=SPOKEN_TEXT, voice="alloy", stream_format="sse"),
        constant(media.speech_stream(SPOKEN)),
        "announcer",
        SPOKEN,
        streamed=True,
    ),
    Sample(
        "transcript",
        Endpoint.TRANSCRIPTIONS,
        uploaded("/v1/audio/transcriptions", file="file", model="listener"),
        constant(media.token_transcript(HEARD)),
        "listener",
        HEARD,
    ),
    Sample(
        "timed transcript",
        Endpoint.TRANSCRIPTIONS,
        uploaded("/v1/audio/transcriptions", file="file", model="scribe"),
        constant(media.timed_transcript(TIMED)),
        "scribe",
        TIMED,
    ),
    Sample(
        "transcript stream",
        Endpoint.TRANSCRIPTIONS,
        uploaded("/v1/audio/transcriptions", file="file", model="listener", stream="true"),
        constant(media.transcript_stream(HEARD)),
        "listener",
        HEARD,
        streamed=True,
    ),
    Sample(
        "translation",
        Endpoint.TRANSLATIONS,
        uploaded("/v1/audio/translations", file="file", model="scribe"),
        constant(media.translation()),
        "scribe",
        due=Due.HELD,
    ),
    Sample(
        "film",
        Endpoint.VIDEOS,
        uploaded("/v1/videos", file="input_reference", model="director", prompt=PROMPT, seconds=str(FILM_SECONDS)),
        lambda request: media.video("director", seconds=FILM_SECONDS, id_=id_of(request)),
        "director",
        FILM,
        Due.LATER,
    ),
    Sample(
        "film at once",
        Endpoint.VIDEOS,
        uploaded("/v1/videos", file="input_reference", model="director", prompt=PROMPT, seconds=str(FILM_SECONDS)),
        constant(media.video("director", seconds=FILM_SECONDS, status="completed")),
        "director",
        FILM,
    ),
)
