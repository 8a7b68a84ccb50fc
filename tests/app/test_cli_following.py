"""How the command line listens to an event stream, from a server that says what is written down here."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from app.cli.api_client import Api
from app.cli.following import listen

STREAM = (
    ": a comment\n\n"
    "id: 0\n\n"
    "event: waiting\ndata:\n\n"
    'id: 1\nevent: snapshot\ndata: {"execution": {}, "steps": []}\n\n'
    ": ping\n\n"
    "retry: 3000\n\n"
    'id: 2-end\nevent: end\ndata: {"runtimeStatus": "COMPLETED"}\n\n'
)


@contextmanager
def telling(stream: str) -> Iterator[str]:
    """A server that answers every request with the stream; its address."""

    class Told(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(stream.encode())

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Told) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_comments_and_events_without_data_are_passed_over() -> None:
    with telling(STREAM) as url, Api(url) as api:
        heard = list(listen(api, "some"))
    assert [(one.event, one.id) for one in heard] == [("snapshot", "1"), ("end", "2-end")]
    assert heard[-1].data == {"runtimeStatus": "COMPLETED"}
