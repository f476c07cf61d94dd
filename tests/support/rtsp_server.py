"""A camera for tests: an RTSP server (RFC 2326) of one H.264 film, as RTP (RFC 6184) inside of the connection."""

import base64
import itertools
import re
import socket
import struct
import threading
import time
from pathlib import Path

import av

_PAYLOAD = 1200  # bytes of an RTP packet
_TYPE, _CLOCK = 96, 90_000


def access_units(path: Path) -> tuple[list[bytes], list[tuple[float, list[bytes]]]]:
    """Return the parameter sets of a film, and the seconds and NAL units of its pictures."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        annexb = av.BitStreamFilterContext("h264_mp4toannexb", stream)
        found = []
        for packet in container.demux(stream):
            for made in annexb.filter(packet if packet.size else None):
                units = [unit for unit in re.split(b"\0\0\0?\x01", bytes(made)) if unit]
                found.append((float(made.pts * made.time_base), units))
    sets = {unit[0] & 31: unit for _, units in found for unit in units if unit[0] & 31 in (7, 8)}
    return [sets[7], sets[8]], found


class RtspServer:
    """Plays the film once, in its own thread, and is gone then; a context manager.

    Attributes:
      url: with name and password, which are asked for.
      methods: the requests of all clients.
    """

    def __init__(self, path: Path, *, speed: float = 8.0):
        self._sets, self._units = access_units(path)
        self._speed, self.methods = speed, []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"rtsp://ann:secret@127.0.0.1:{self._socket.getsockname()[1]}/live"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._socket.close()

    def _serve(self):
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:  # closed
                return
            with client, client.makefile("rb") as lines:
                try:
                    self._answer(client, lines)
                except (BrokenPipeError, ConnectionResetError):
                    continue

    def _answer(self, client, lines):
        """Answer requests until one asks to play; play."""
        allowed = base64.b64encode(b"ann:secret").decode()
        while (first := lines.readline().decode().split()) != []:
            fields = {}
            while (line := lines.readline().decode().strip()) != "":
                name, _, value = line.partition(":")
                fields[name.lower()] = value.strip()
            method, body, more = first[0], b"", {"Session": "1"}
            self.methods.append(method)
            status = "200 OK"
            if fields.get("authorization") != f"Basic {allowed}" and method != "OPTIONS":
                status, more = "401 Unauthorized", {"WWW-Authenticate": 'Basic realm="camera"'}
            elif method == "DESCRIBE":
                body, more = self._description(), {"Content-Type": "application/sdp"}
            elif method == "SETUP":
                assert "RTP/AVP/TCP" in fields["transport"]
                more["Transport"] = "RTP/AVP/TCP;unicast;interleaved=0-1"
            head = {"CSeq": fields["cseq"], **more, "Content-Length": str(len(body))}
            text = "".join(f"{name}: {value}\r\n" for name, value in head.items())
            client.sendall(f"RTSP/1.0 {status}\r\n{text}\r\n".encode() + body)
            if method == "PLAY" and status == "200 OK":
                self._socket.close()  # whoever comes again is refused
                self._play(client)
                return

    def _description(self):
        sets = ",".join(base64.b64encode(one).decode() for one in self._sets)
        lines = [
            *("v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=camera", "c=IN IP4 0.0.0.0", "t=0 0"),
            *(f"m=video 0 RTP/AVP {_TYPE}", f"a=rtpmap:{_TYPE} H264/{_CLOCK}"),
            *(f"a=fmtp:{_TYPE} packetization-mode=1;sprop-parameter-sets={sets}", "a=control:track0"),
        ]
        return "".join(f"{line}\r\n" for line in lines).encode()

    def _play(self, client):
        begun, numbers = time.monotonic(), itertools.count()
        for seconds, units in self._units:
            time.sleep(max(0.0, begun + seconds / self._speed - time.monotonic()))
            parts = [part for unit in units for part in _fragments(unit)]
            for place, part in enumerate(parts):
                last = 0x80 if place + 1 == len(parts) else 0
                stamp = round(seconds * _CLOCK) & 0xFFFFFFFF
                packet = struct.pack(">BBHII", 0x80, last | _TYPE, next(numbers) & 0xFFFF, stamp, 1) + part
                client.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)


def _fragments(unit):
    """Split a NAL unit into payloads: itself, or fragments of it (FU-A)."""
    if len(unit) <= _PAYLOAD:
        return [unit]
    head, kind, body = (unit[0] & 0xE0) | 28, unit[0] & 31, unit[1:]
    parts = [body[i : i + _PAYLOAD] for i in range(0, len(body), _PAYLOAD)]
    ends = [0x80, *[0] * (len(parts) - 2), 0x40]
    return [bytes([head, kind | end]) + part for end, part in zip(ends, parts, strict=True)]
