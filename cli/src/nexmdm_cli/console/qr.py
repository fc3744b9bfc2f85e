"""QR codes that a phone scans off the screen."""

import io

import segno
from starlette.requests import Request
from starlette.responses import Response

from nexmdm_cli.console.problems import problem

LONGEST = 2000


async def draw(request: Request) -> Response:
    """The request's text as SVG, dark on white in either theme, with the quiet zone that scanners want."""
    text = await request.body()
    if not (0 < len(text) <= LONGEST and text.isascii()):
        return problem(422, "Invalid field", f"A QR code holds 1 to {LONGEST} ASCII characters.")
    image = io.BytesIO()
    segno.make(text.decode(), error="m", micro=False).save(
        image, kind="svg", scale=5, border=4, light="#fff", svgclass=None
    )
    return Response(image.getvalue(), media_type="image/svg+xml")
