"""The development server's own errors as the API's JSON: requests that never reach Flask."""

import json
from http import HTTPStatus

from werkzeug.serving import WSGIRequestHandler

REMEDIES = {
    HTTPStatus.REQUEST_URI_TOO_LONG: "send the image in the body of a POST, not in the address",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "send fewer and shorter headers",
    HTTPStatus.HTTP_VERSION_NOT_SUPPORTED: "use HTTP/1.1",
    HTTPStatus.NOT_IMPLEMENTED: "use GET or POST, see /docs",
}


class JsonErrors(WSGIRequestHandler):
    """werkzeug's handler, which answers what it can't parse with HTML, made to speak JSON."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer `code` with {"error": ...} and close the connection."""
        status = HTTPStatus(code)
        remedy = REMEDIES.get(status, "the request is not valid HTTP: is it https, or no HTTP?")
        body = json.dumps({"error": f"{status.phrase}: {remedy}"}).encode() + b"\n"
        self.log_error("code %d", code)
        if self.request_version == "HTTP/0.9":  # what can't be parsed has no version yet
            self.request_version = "HTTP/1.1"
        self.send_response(code, status.phrase)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = True
