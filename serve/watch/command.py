"""The command line of `twinreel watch`."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from ...base.errors import UserError
from ...base.parser import Parser

if TYPE_CHECKING:
    from .alerts import AlertOptions
    from .scorers import Scorer

DESCRIPTION = """Look at a live stream with a model, and report what it sees as JSON lines.

  twinreel watch rtsp://camera/stream --model runs/mine --alert "a person falls" --background "an empty room"
  twinreel watch /dev/video0 --model runs/fights --alert fight --webhook http://127.0.0.1:9000/events
  twinreel watch hall.mp4 --loop --model runs/odd --scores

SOURCE is a camera (/dev/video0), a stream (rtsp, rtmp, http, https, udp, tcp, srt), or a file: at the pace of a camera
(--pace 1; 0 = as fast as the model), in a loop (--loop), or while it is written (--follow; MPEG-TS or Matroska).

MODEL is a dual tower, which needs --alert TEXT; a classifier, whose alerts are its labels; or a model of anomalies. The
last --window seconds are scored every --hop seconds; only these are in memory. With --background the score of a text
is its probability among it and the background texts, otherwise its cosine, for which --on has to be given.

An alert begins when a score reaches --on and stays at --off or above for --min_s seconds; it ends below --off, and does
not begin again for --cooldown_s seconds. `--alert "TEXT::ON:OFF"` sets the thresholds of one alert.

Events, one JSON object a line: alert_on, alert_off, scores (with --scores), and at the end, or at Ctrl-C, summary. Each
has `start_s` and `end_s` of the window, `latency_s` (from the arrival of its last frame to the event), and the frames
and windows that were lost so far because the model was too slow. --webhook posts them, without ever delaying the video;
TWINREEL_WEBHOOK_TOKEN is sent as a bearer token.

A lost stream is opened again, --retries times in a row. Exit status: 0 the end or Ctrl-C, 1 the stream was lost, 2 a
mistake, or a stream that cannot be opened."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    args, _ = _parser().parse(argv)
    from ...data.media.live import LiveOptions
    from ...encode.embed.film import index_options
    from .run import Watch, WatchOptions
    from .scorers import open_scorer
    from .webhook import Webhook

    _check(args)
    source = LiveOptions(
        source=args.source, loop=args.loop, follow=args.follow, pace=args.pace, stall_s=args.stall_s, fps=args.fps
    )
    hook = Webhook(args.webhook, timeout_s=args.webhook_timeout_s) if args.webhook else None
    named = [_named(one) for one in args.alert]
    scorer = open_scorer(args.model, alerts=[name for name, _, _ in named], background=args.background)
    alerts = _alerts(scorer, args=args, named=named)
    window = scorer.window_s or args.window or 4.0
    hop = window if scorer.window_s else args.hop or min(1.0, window)
    options = WatchOptions(seconds=window, hop=hop, retries=args.retries, all_scores=args.scores, max_s=args.max_s)
    decode = index_options(scorer.spec.input, fps=args.fps)
    kept = {"fps": decode.fps, "short_side": decode.short_side, "jpeg_quality": decode.jpeg_quality}
    source = LiveOptions(**{**vars(source), **kept})
    scorer.warm_up()
    started = {"event": "started", "source": source.shown, "model": args.model, "alerts": list(alerts)}
    if hook is not None:
        hook.start(started)

    def emit(event: dict[str, Any]) -> None:
        print(json.dumps(event, ensure_ascii=False), flush=True)
        if hook is not None:
            hook.send(event)

    summary = Watch(source, scorer=scorer, alerts=alerts, options=options, emit=emit).run()
    if hook is not None:
        hook.close()
        print(f"webhook: {json.dumps(hook.counts())}", file=sys.stderr)
    if summary["lost"]:
        print(f"error: {source.shown} was lost: {summary['lost']}", file=sys.stderr)
    return 1 if summary["lost"] else 0


def _parser() -> Parser:
    parser = Parser(verb="watch", description=DESCRIPTION)
    parser.add_argument("source", metavar="SOURCE", help="a camera, the URL of a stream, or a file")
    parser.add_argument("--model", required=True, help="a run, a bundle or public weights")
    parser.add_argument("--alert", action="append", default=[], metavar="TEXT", help="text or label; may be repeated")
    parser.add_argument(
        "--background", action="append", default=[], metavar="TEXT", help="what is usual; may be repeated"
    )
    parser.add_argument("--scores", action="store_true", help="report the scores of every window, too")
    parser.add_argument("--webhook", default="", metavar="URL", help="post the events there, too")
    parser.add_argument("--webhook_timeout_s", type=float, default=5.0, metavar="S", help="of one attempt, of three")
    group = parser.add_argument_group("alerts")
    group.add_argument(
        "--on", type=float, metavar="X", help="score from which an alert begins (default: 0.5, or the model's)"
    )
    group.add_argument("--off", type=float, metavar="X", help="score below which it ends (default: 0.8 of --on)")
    group.add_argument("--min_s", type=float, default=0.0, metavar="S", help="seconds that it must last to be reported")
    group.add_argument("--cooldown_s", type=float, default=10.0, metavar="S", help="seconds from its end to the next")
    group = parser.add_argument_group("windows")
    group.add_argument("--window", type=float, metavar="S", help="seconds that are scored (default: 4, or the model's)")
    group.add_argument("--hop", type=float, metavar="S", help="seconds from window to window (default: 1)")
    group.add_argument("--fps", type=float, default=8.0, help="frames per second, unless the model says so")
    group = parser.add_argument_group("the stream")
    group.add_argument("--loop", action="store_true", help="begin a file again at its end")
    group.add_argument("--follow", action="store_true", help="wait for a file to grow, up to --stall_s seconds")
    group.add_argument("--pace", type=float, default=1.0, help="seconds of a file per second; 0 = without a pause")
    group.add_argument("--stall_s", type=float, default=10.0, metavar="S", help="seconds without data: lost, or ended")
    group.add_argument("--retries", type=int, default=5, help="attempts in a row to open a lost stream again")
    group.add_argument("--max_s", type=float, default=0.0, metavar="S", help="stop after that time; 0 = never")
    return parser


def _check(args: argparse.Namespace) -> None:
    """Refuse flags that contradict each other, before a model is loaded."""
    from ...data.media.live import PROTOCOLS, LiveOptions

    for name, least in (("fps", 0.1), ("pace", 0.0), ("stall_s", 0.1), ("webhook_timeout_s", 0.1)):
        if not getattr(args, name) >= least:
            raise UserError(f"--{name} is {getattr(args, name):g}; wanted at least {least:g}")
    scheme, colon, _ = args.source.partition("://")
    if colon and scheme.lower() not in PROTOCOLS:
        raise UserError(
            f"SOURCE is of an unknown kind {scheme}://; wanted {', '.join(PROTOCOLS)}, a file or /dev/video0"
        )
    if (args.loop or args.follow) and not LiveOptions(source=args.source).is_file:
        raise UserError(f"--{'loop' if args.loop else 'follow'} is for files; leave it out")
    if args.loop and args.follow:
        raise UserError("--loop begins a file again and --follow waits for it to grow; give one of them")
    if LiveOptions(source=args.source).is_file and not args.follow:
        from ...data.media.place import DecodeError, check_local

        try:
            check_local(args.source)
        except DecodeError as error:
            raise UserError(f"SOURCE {args.source}: {error}") from error


def _named(given: str) -> tuple[str, float | None, float | None]:
    """Read TEXT, TEXT::ON or TEXT::ON:OFF."""
    name, mark, limits = given.rpartition("::")
    if not mark:
        return given, None, None
    on, _, off = limits.partition(":")
    try:
        return name, float(on), float(off) if off else None
    except ValueError as error:
        raise UserError(f"--alert {given!r}: wanted numbers after ::, as in 'a person falls::0.3:0.25'") from error


def _alerts(
    scorer: "Scorer", *, args: argparse.Namespace, named: list[tuple[str, float | None, float | None]]
) -> "dict[str, AlertOptions]":
    """Return when each score is an alert; thresholds that were not given are the model's own."""
    from .alerts import AlertOptions

    own = {name: (on, off) for name, on, off in named}
    found = {}
    for name in scorer.names:
        on, off = own.get(name, (None, None))
        on = args.on if on is None else on
        if on is None and scorer.thresholds is None:
            raise UserError(
                "the cosine of a text and a video has no natural threshold: give --on (see the scores of your stream "
                "with --scores --on 1), 'TEXT::ON', or --background TEXT, which makes scores probabilities"
            )
        usual = scorer.thresholds or (0.5, 0.4)
        off = args.off if off is None else off
        off = (usual[1] if on is None else 0.8 * on if on > 0 else on) if off is None else off
        on = usual[0] if on is None else on
        found[name] = AlertOptions(on=on, off=off, min_s=args.min_s, cooldown_s=args.cooldown_s)
    return found
