"""Read a request's body within its limit: JSON, a picture, a form, compressed or not."""

import io
import zlib

from flask import request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from tp1_mnist_api.serving import settings
from tp1_mnist_api.serving.decoding import MEDIA_TYPES, OTHER_NAMES
from tp1_mnist_api.serving.inputs import InputError

WANTED = (
    "send JSON with -H 'Content-Type: application/json', or a picture with "
    f"-H 'Content-Type: image/png' (or {', '.join(MEDIA_TYPES[1:])}) and --data-binary @file, "
    "or as a form with -F image=@file"
)
WANTED_JSON = "send JSON with -H 'Content-Type: application/json'"


def whole_body() -> bytes:
    """The request's body, decompressed; 413 above its limit, 415 for an unknown compression."""
    body = request.environ.get(settings.BODY)
    if body is None or len(body) > request.max_content_length:
        body = request.get_data(cache=False)
        if "CONTENT_LENGTH" not in request.environ:  # Flask cuts a body of chunks at the limit
            request.stream.read(1)  # raises 413 if it did
    if "HTTP_CONTENT_ENCODING" in request.environ:
        return _decompressed(body)
    return body


def _decompressed(body: bytes) -> bytes:
    """`body` without the compression that its header names, gzip or deflate."""
    encoding = request.environ["HTTP_CONTENT_ENCODING"].strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise UnsupportedMediaType(
            f"Content-Encoding {encoding[:30]} can't be read; use gzip, or send it uncompressed"
        )
    unpack = zlib.decompressobj(47 if "gzip" in encoding else 15)  # 47: gzip or zlib by header
    limit = request.max_content_length
    try:
        content = unpack.decompress(body, limit + 1)
    except zlib.error:
        raise BadRequest(f"The body is not {encoding}, as its Content-Encoding says") from None
    if len(content) > limit:  # a small body may hold gigabytes: no more is unpacked
        raise RequestEntityTooLarge
    if not unpack.eof:
        raise BadRequest(f"The {encoding} body ends too early")
    return content


def uploaded_picture(limit_bytes: int) -> bytes:
    """The encoded picture of a form's field `image` or of the body itself.

    Raises `InputError` for a form without it, 413 above the limit and 415 for other content.
    """
    request.max_content_length = limit_bytes
    if request.mimetype == "multipart/form-data":
        if "HTTP_CONTENT_ENCODING" in request.environ:
            body = whole_body()
            request.environ["wsgi.input"] = io.BytesIO(body)
            request.environ["CONTENT_LENGTH"] = str(len(body))
            request.__dict__.pop("stream", None)
        return _field_of_the_form()
    if request.mimetype in MEDIA_TYPES or request.mimetype in OTHER_NAMES:
        return whole_body()
    raise UnsupportedMediaType(f"{received()}; {WANTED}")


def _field_of_the_form() -> bytes:
    if "image" in request.files:
        return request.files["image"].read()
    message = "No image provided"
    if "image" in request.form:
        message += ": the field image is text, it must be a file: -F image=@file"
    elif names := [*request.files, *request.form]:
        found = ", ".join(repr(name[:30]) for name in names[:5])
        message += f": the form's field must be 'image', got {found}"
    raise InputError(message, "no_image")


def received() -> str:
    """The request's media type, in words."""
    if not request.mimetype:
        return "The request has no Content-Type"
    return f"The request's Content-Type is {request.mimetype[:60]}"


def too_large(limit_bytes: int) -> str:
    """What to say of a body above `limit_bytes`."""
    limit = f"{limit_bytes / 2**20:g} MiB" if limit_bytes >= 2**20 else f"{limit_bytes} bytes"
    remedy = "send fewer images at once" if request.is_json else "reduce the picture or its quality"
    return f"The body is longer than {limit}, the limit for this kind of content; {remedy}"
