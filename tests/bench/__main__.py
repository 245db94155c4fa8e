"""relay's benchmark.  It needs Linux and a C compiler; peers are measured if they are installed.

    python tests/bench table [--rounds 3]          this checkout beside its peers
    python tests/bench pairs                       every pair of dialects, over sockets
    python tests/bench translate                   every pair in one process: worst cases
    python tests/bench compare COMMIT [COMMIT]     two commits (the second: this checkout), paired
    python tests/bench memory                      100,000 mixed requests; open and stalled streams
    python tests/bench growth                      many in flight; many keys, providers, rules
    python tests/bench start                       from the command to the first answer
    python tests/bench profile SCENARIO [CLIENT PROVIDER]   where the time goes (cProfile)

The provider and the load generator run on core 0, who is measured on core 1.  Rounds are
interleaved; figures are medians.  Compare figures of one run only.
"""

import argparse
import contextlib
import io
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import growth  # noqa: E402
import inside  # noqa: E402
import soak  # noqa: E402
from measure import Bench, Running, Scenario, free_port, process, running, wait_for  # noqa: E402
from peers import Peer, Place, built, others, relay_peer  # noqa: E402

import relay  # noqa: E402

SCENARIOS = {
    row.name: row
    for row in (
        Scenario("tiny", "tiny", False, 32),
        Scenario("tiny, one at a time", "tiny", False, 1),
        Scenario("agent 260 KB", "agent", False, 32),
        Scenario("agent 260 KB, one at a time", "agent", False, 1),
        Scenario("stream", "tiny", True, 256, 2.0, 256, deltas=300, pause_us=10_000),
        Scenario("stream, one", "tiny", True, 1, 2.0, 4, deltas=300, pause_us=1000),
        Scenario("stream, at once", "tiny", True, 32, 1.5, deltas=300),
    )
}
# Client and provider: how the columns begin, and the scenarios.
README_COLUMNS = {
    ("openai", "openai"): (
        "",
        ("tiny", "agent 260 KB", "agent 260 KB, one at a time", "stream", "stream, at once"),
    ),
    ("anthropic", "openai"): ("translated: ", ("tiny", "agent 260 KB, one at a time", "stream")),
}
OF_A_PAIR = ("tiny", "agent 260 KB", "stream")
DIALECTS = tuple(relay.DIALECTS)


@contextlib.contextmanager
def bench(directory: Path) -> Any:
    port, load = free_port(), built("load", directory)
    command = [built("provider", directory), str(port)]
    with process(command, 0, directory / "provider.log", {}):
        wait_for(port)
        yield Bench(directory, port, load)


def here(directory: Path) -> list[Peer]:
    """This checkout, with and without uvloop."""
    nothing = directory / "nothing"
    nothing.mkdir(exist_ok=True)
    program = ROOT / "relay.py"
    found = [relay_peer("relay", program, DIALECTS, False, nothing)]
    if find_spec("uvloop"):
        found.append(relay_peer("relay + uvloop", program, DIALECTS, True, nothing))
    return found


def as_script(directory: Path) -> Peer:
    """This checkout, compiled at each start: Python keeps no bytecode of a script."""
    relay_here, *_ = here(directory)

    def command(place: Place) -> list[str]:
        assert relay_here.command
        python, _, _, *rest = relay_here.command(place)
        return [python, str(ROOT / "relay.py"), *rest]

    return replace(relay_here, name="python relay.py", command=command)


def rounds(
    tools: Bench,
    ones: list[Running],
    pair: tuple[str, str],
    names: tuple[str, ...],
    count: int,
) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """(peer, scenario) -> what was found, in the order of the rounds."""
    client, provider = (relay.DIALECTS[name] for name in pair)
    ready = [one for one in ones if one.peer.takes(*pair)]
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in ready:  # warm
        tools.measure(one, client, provider, Scenario("warm", "tiny", False, 8, 0.3))
    for name in names:
        for number in range(count):
            for one in ready[number % len(ready) :] + ready[: number % len(ready)]:
                try:
                    row = tools.measure(one, client, provider, SCENARIOS[name])
                except SystemExit as failure:  # LiteLLM does not get through 256 streams
                    if one.peer.name.startswith("relay"):
                        raise
                    print(failure, file=sys.stderr)
                    continue
                found.setdefault((one.peer.name, name), []).append(row)
                print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


def cpu(found: dict[tuple[str, str], list[dict[str, Any]]], peer: str, name: str) -> float | None:
    """us per request, or per chunk of a stream."""
    rows = found.get((peer, name))
    if not rows:
        return None
    if not SCENARIOS[name].stream:
        return median(row["cpu"] for row in rows)
    tiny = median([row["cpu"] for row in found.get((peer, "tiny"), [])] or [0])
    return median((row["cpu"] - tiny) / (row["stamps"] / row["good"]) for row in rows)


def delay(found: dict[tuple[str, str], list[dict[str, Any]]], peer: str, name: str) -> float | None:
    """us that are added at the median to a request, or to a chunk."""
    rows, direct = found.get((peer, name)), found.get(("nothing between", name))
    what = "chunk" if SCENARIOS[name].stream else "latency"
    if not rows or not direct:
        return None
    return median(row[what]["p50"] for row in rows) - median(row[what]["p50"] for row in direct)


def shown(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def print_table(head: list[str], rows: list[list[str]]) -> None:
    print("| " + " | ".join(head) + " |")
    print("| --- |" + " ---: |" * (len(head) - 1))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def conditions() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    load = os.getloadavg()[0]
    return (
        f"relay {relay.__version__}, Python {platform.python_version()}, {model}, "
        f"{os.cpu_count()} cores, load {load:.1f} beside it"
    )


def git(*words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def command_table(args: argparse.Namespace, directory: Path) -> None:
    """CPU and delay, per peer and scenario."""
    names = tuple(args.scenarios) if args.scenarios else tuple(SCENARIOS)
    with bench(directory) as tools, contextlib.ExitStack() as stack:
        said = conditions()
        peers = [
            p for p in others(directory) + here(directory) if not args.only or p.name in args.only
        ]
        ones = [stack.enter_context(running(p, tools.provider, directory)) for p in peers]
        if args.readme:
            print_readme_table(tools, ones, args.rounds)
            return
        for pair in (("openai", "openai"), ("anthropic", "openai")):
            ready = [one for one in ones if one.peer.takes(*pair)]
            if not ready:
                continue
            found = rounds(tools, ones, pair, names, args.rounds)
            print(f"CPU in microseconds, {pair[0]} client, {pair[1]} provider ({said})\n")
            head = ["", *(f"{n}, a chunk" if SCENARIOS[n].stream else n for n in names)]
            peers_here = [one.peer.name for one in ready if one.peer.command]
            digits = {name: 1 if SCENARIOS[name].stream else 0 for name in names}
            rows = [[p, *(shown(cpu(found, p, n), digits[n]) for n in names)] for p in peers_here]
            print_table(head, rows)
            if any(one.peer.command is None for one in ready):
                print(
                    "Added at the median, microseconds (closed loop: of 32 in flight, queueing)\n"
                )
                rows = [[p, *(shown(delay(found, p, n)) for n in names)] for p in peers_here]
                print_table(head, rows)


def print_readme_table(tools: Bench, ones: list[Running], count: int) -> None:
    """CPU of what coding tools do, passed on and translated, in one table."""
    columns: dict[tuple[str, str], Any] = {}
    for pair, (words, names) in README_COLUMNS.items():
        found = rounds(tools, ones, pair, names, count)
        for name in names:
            what = f"{words}{name}" + (", a chunk" if SCENARIOS[name].stream else "")
            digits = 1 if SCENARIOS[name].stream else 0
            row = {o.peer.name: shown(cpu(found, o.peer.name, name), digits) for o in ones}
            columns[what, name] = row
    print(f"CPU in microseconds ({conditions()})\n")
    peers = [one.peer.name for one in ones if one.peer.command]
    rows = [[peer, *(column[peer] for column in columns.values())] for peer in peers]
    print_table(["", *(what for what, _ in columns)], rows)


def command_pairs(args: argparse.Namespace, directory: Path) -> None:
    """CPU of every pair of dialects."""
    with bench(directory) as tools, contextlib.ExitStack() as stack:
        one = stack.enter_context(running(here(directory)[0], tools.provider, directory))
        print(f"CPU in microseconds ({conditions()})\n")
        rows = []
        for pair in ((c, p) for c in DIALECTS for p in DIALECTS):
            found = rounds(tools, [one], pair, OF_A_PAIR, args.rounds)
            figures = (
                shown(cpu(found, one.peer.name, name), 1 if SCENARIOS[name].stream else 0)
                for name in OF_A_PAIR
            )
            rows.append([f"{pair[0]} to {pair[1]}", *figures])
        print_table(["client to provider", "tiny", "agent 260 KB", "a chunk"], rows)


def command_compare(args: argparse.Namespace, directory: Path) -> None:
    """Two commits in turns: the ratio of each pair of measurements, and their median."""
    nothing, programs = directory / "nothing", {}
    nothing.mkdir()
    for commit in args.commits:
        tree = directory / commit.replace("/", "-")
        tree.mkdir()
        (tree / "relay.py").write_text(git("show", f"{commit}:relay.py") + "\n")
        programs[commit] = tree / "relay.py"
    if len(programs) == 1:
        programs["here"] = ROOT / "relay.py"
    peers = [
        relay_peer(n, p, ("openai", "anthropic"), args.uvloop, nothing) for n, p in programs.items()
    ]
    with bench(directory) as tools, contextlib.ExitStack() as stack:
        ones = [stack.enter_context(running(p, tools.provider, directory)) for p in peers]
        rows = []
        pairs = [tuple(args.pair)] if args.pair else [("openai", "openai"), ("anthropic", "openai")]
        names = tuple(args.scenario or OF_A_PAIR)
        for pair in pairs:
            found = rounds(tools, ones, pair, names, args.rounds)
            for name in names:
                old, new = (found[peer.name, name] for peer in peers)
                ratios = sorted(b["cpu"] / a["cpu"] for a, b in zip(old, new, strict=True))
                figures = (shown(cpu(found, p.name, name), 1) for p in peers)
                spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
                what = f"{pair[0]} to {pair[1]}, {name}"
                rows.append([what, *figures, f"{median(ratios):.2f}", spread])
    print(f"CPU in microseconds, paired ({conditions()})\n")
    print_table(["", *programs, "ratio", "of all pairs"], rows)


def command_profile(args: argparse.Namespace, directory: Path) -> None:
    """One scenario under cProfile, by own time."""
    [peer] = here(directory)[:1]
    stats = directory / "stats"

    def command(place: Any) -> list[str]:
        assert peer.command
        python, *rest = peer.command(place)
        return [python, "-m", "cProfile", "-o", str(stats), *rest]

    profiled = Peer(peer.name, command, peer.pairs, peer.env)
    client, provider = (relay.DIALECTS[name] for name in args.pair)
    with bench(directory) as tools, running(profiled, tools.provider, directory) as one:
        tools.measure(one, client, provider, SCENARIOS[args.scenario])
    code = f"import pstats; pstats.Stats({str(stats)!r}).sort_stats('tottime').print_stats(60)"
    subprocess.run([sys.executable, "-c", code], check=True)


def command_translate(args: argparse.Namespace, directory: Path) -> None:
    print(f"In one process ({conditions()})\n")
    head = ["client to provider", "250 KB request, us", "10,000 deltas, us each", "peak MB"]
    print_table(head, [inside.row(*pair) for pair in inside.pairs()])


def command_memory(args: argparse.Namespace, directory: Path) -> None:
    with bench(directory) as tools:
        peer = here(directory)[-1 if args.uvloop else 0]
        print(f"Memory in MB ({conditions()})\n")
        for head, rows in soak.tables(tools, peer, args.requests):
            print_table(head, rows)


def command_growth(args: argparse.Namespace, directory: Path) -> None:
    """CPU of a request where more is going on, or more is configured."""
    plain = here(directory)[-1 if args.uvloop else 0]
    with bench(directory) as tools, contextlib.ExitStack() as stack:
        print(f"The least of {args.rounds} rounds ({conditions()})\n")
        ones = {
            which: stack.enter_context(running(peer, tools.provider, directory))
            for which, peer in growth.peers(plain).items()
        }
        rows = growth.by_flight(tools, ones["", 1], args.rounds)
        print_table(["in flight", *map(str, growth.IN_FLIGHT)], rows)
        rows = growth.by_size(tools, ones, args.rounds)
        print_table(["CPU of a tiny request, us", *map(str, growth.SIZES)], rows)


def command_start(args: argparse.Namespace, directory: Path) -> None:
    with bench(directory) as tools:
        plain = [peer for peer in others(directory) if peer.name.startswith("aiohttp")]
        rows = [
            soak.start_row(tools, peer) for peer in plain + here(directory) + [as_script(directory)]
        ]
    print(f"The least of five starts ({conditions()})\n")
    print_table(["", "to the first answer, s", "CPU, s", "memory, MB"], rows)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.set_defaults(readme=False)
    commands = top.add_subparsers(dest="command", required=True)
    for name in ("table", "pairs", "translate", "compare", "memory", "growth", "start", "profile"):
        sub = commands.add_parser(name)
        sub.add_argument("--rounds", type=int, default=3)
        sub.add_argument("--uvloop", action="store_true")
        if name == "table":
            sub.add_argument("--readme", action="store_true", help="put the tables there")
            sub.add_argument("--only", action="append", help="a peer by its name; may be repeated")
            sub.add_argument("scenarios", nargs="*", choices=[[], *SCENARIOS])
        if name == "memory":
            sub.add_argument("--requests", type=int, default=100_000)
        if name == "compare":
            sub.add_argument("commits", nargs="+")
            sub.add_argument("--scenario", action="append", choices=SCENARIOS)
            sub.add_argument("--pair", nargs=2)
        if name == "profile":
            sub.add_argument("scenario", choices=SCENARIOS)
            sub.add_argument("pair", nargs="*", default=["openai", "openai"])
    return top


def main() -> None:
    args = parser().parse_args()
    said = io.StringIO()
    place = contextlib.redirect_stdout(said) if args.readme else contextlib.nullcontext()
    with place, tempfile.TemporaryDirectory(prefix="relay-bench-") as directory:
        globals()[f"command_{args.command}"](args, Path(directory))
    if args.readme:
        print(said.getvalue())
        write_readme(said.getvalue())


def write_readme(tables: str) -> None:
    """The CPU of the last run as one table, between its marks."""
    parts = tables.strip().split("\n\n")
    caption, first, *more = (
        text
        for cpu in range(0, len(parts), 2)
        if parts[cpu].startswith("CPU")
        for text in parts[cpu : cpu + 2]
    )
    translated = [row for part in more[1::2] for row in part.splitlines()[2:]]
    rows = [row.replace(" | ", ", translated | ", 1) for row in translated]
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split("<!-- performance -->\n")
    after = rest.partition("<!-- /performance -->")[2]
    table = "\n".join([first, *rows])
    marks = f"<!-- performance -->\n{caption}\n\n{table}\n<!-- /performance -->"
    readme.write_text(before + marks + after)


main()
