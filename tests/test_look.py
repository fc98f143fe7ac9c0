"""The page of `ussim look` without a browser: who is let in, what is made again, the newest request, bounds, errors."""

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import ussim
from ussim.errors import ConfigError, DataError
from ussim.look.bench import Bench, View
from ussim.look.bmode import routes
from ussim.look.cache import Cache, Latest, Superseded, bytes_of
from ussim.look.server import Answer, Server

ROOT = Path(__file__).resolve().parents[1]
# A flat array of few elements and a shallow field: a picture in tens of milliseconds.
PROBE = replace(
    ussim.load_probe("P4-2v"),
    name="small",
    n_elements=16,
    imaging=replace(ussim.load_probe("P4-2v").imaging, x=(-8e-3, 8e-3), z=(20e-3, 34e-3), n_transmits=3),
)
SMALL = View(probe="small", mean_distance_wavelengths=3, n_transmits=2)


@contextmanager
def served(paths):
    """Serve routes in a thread; gives the server."""
    server, loop, up = Server(paths), asyncio.new_event_loop(), threading.Event()

    async def begin():
        server.start()
        up.set()

    def work():
        asyncio.set_event_loop(loop)
        loop.run_until_complete(begin())
        loop.run_forever()

    thread = threading.Thread(target=work)
    thread.start()
    assert up.wait(20)
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


def asked(server, path, body=None, host=None, kind="application/json", headers=()):
    """(status, headers, body) of one request; the path without the token begins with "/"."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    where = path if path.startswith("/") else f"/{server.token}/{path}"
    given = {"Host": host or f"127.0.0.1:{server.port}", **dict(headers)}
    if body is not None:
        given["Content-Type"] = kind
    connection.request("GET" if body is None else "POST", where, body, given)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), content


async def hello(request):
    return Answer.of({"values": request.values, "rest": request.rest, "bytes": len(request.body)})


async def broken(request):
    raise ZeroDivisionError("/secret/path")


async def wrong(request):
    raise ConfigError("depth: expected a number,\ngot 'x'")


@pytest.fixture(scope="module")
def plain():
    with served({"": hello, "hello": hello, "broken": broken, "wrong": wrong}) as server:
        yield server


# --- who is let in -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "127.0.0.1:{port}.evil"]
)
def test_another_host_is_refused(plain, host):
    status, _, content = asked(plain, "hello", host=host.format(port=plain.port) or " ")
    assert status in (400, 403)
    assert b"values" not in content


def test_this_machine_is_let_in_by_both_its_names(plain):
    for name in ("127.0.0.1", "localhost", "LOCALHOST"):
        assert asked(plain, "hello", host=f"{name}:{plain.port}")[0] == 200


@pytest.mark.parametrize(
    "path", ["/", "/hello", "/wrong-token/hello", "/{half}/hello", "/{token}x/hello", "//{token}/hello"]
)
def test_without_the_token_nothing_is_told(plain, path):
    path = path.format(token=plain.token, half=plain.token[:10])
    status, _, content = asked(plain, path)
    if path.startswith("//"):
        assert b"values" not in content
        return
    assert status == 403
    assert json.loads(content) == {
        "error": "expected the address that was printed at the start, with its token, got another one"
    }


def test_tokens_are_long_and_differ():
    assert Server({}).token != Server({}).token
    assert len(Server({}).token) >= 20


def test_a_page_of_another_site_cannot_ask(plain):
    assert asked(plain, "hello", b"{}", headers={"Origin": "http://evil.example"})[0] == 403
    assert asked(plain, "hello", b"{}", headers={"Origin": f"http://127.0.0.1:{plain.port}"})[0] == 200


def test_it_listens_on_this_machine_alone(plain):
    addresses = [each.getsockname() for each in plain._http._sockets.values()]
    assert addresses == [("127.0.0.1", plain.port)]


def test_answers_say_who_may_use_them(plain):
    headers = asked(plain, "hello")[1]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert "Server" not in headers


# --- what is wrong is one line -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("missing", None, 404, "there is no 'missing' here"),
        ("../../etc/passwd", None, 404, "there is no '..' here"),
        ("hello", b"[1]", 400, "expected a JSON object, got something else"),
        ("hello", b"{", 400, "expected a JSON object, got something else"),
        ("hello", b"\xff\xfe", 400, "expected a JSON object, got something else"),
        ("wrong", b"{}", 400, "depth: expected a number, got 'x'"),
    ],
)
def test_a_wrong_request_is_one_line(plain, path, body, status, words):
    got, _, content = asked(plain, path, body)
    assert (got, json.loads(content)) == (status, {"error": words})


def test_a_defect_tells_no_path(plain, caplog):
    status, _, content = asked(plain, "broken")
    assert (status, json.loads(content)) == (500, {"error": "a defect of the server"})


def test_too_large_a_request_is_refused(plain):
    connection = http.client.HTTPConnection("127.0.0.1", plain.port, timeout=20)
    connection.putrequest("POST", f"/{plain.token}/hello")
    connection.putheader("Content-Length", str(100 << 20))
    connection.endheaders()
    assert connection.getresponse().status in (400, 413)
    connection.close()


def test_a_port_that_is_taken_is_one_line(plain):
    with pytest.raises(DataError, match=rf"port {plain.port}: expected a port that is free"):
        asyncio.run(_start(Server({}, port=plain.port)))


async def _start(server):
    server.start()


# --- the cache and the newest request ------------------------------------------------------------------------------


def test_the_cache_keeps_within_its_bytes():
    cache = Cache(limit=100_000)
    for number in range(50):
        cache.get(number, lambda: np.zeros(1250))  # 10 kB
        assert cache.n_bytes <= 100_000
    assert len(cache) == 9
    assert 49 in cache
    assert 0 not in cache


def test_what_was_used_last_stays_longest():
    cache = Cache(limit=25_000)
    made = []
    for key in ("a", "b", "a", "c", "a"):
        cache.get(key, lambda key=key: made.append(key) or np.zeros(1250))
    assert made == ["a", "b", "c"]


def test_a_result_larger_than_the_cache_is_not_kept():
    cache = Cache(limit=1000)
    assert cache.get("a", lambda: np.zeros(1250)).size == 1250
    assert cache.n_bytes == 0


def test_a_failure_is_not_kept():
    cache = Cache()
    with pytest.raises(ValueError, match="no"):
        cache.get("a", _raise)
    assert cache.get("a", lambda: 1) == 1


def _raise():
    raise ValueError("no")


def test_bytes_count_the_arrays_of_a_value():
    scatterers = ussim.Scatterers(np.zeros(1000), np.ones(1000), np.ones(1000))
    assert bytes_of(scatterers) >= 24_000
    assert bytes_of((np.zeros(10), b"12345")) >= 85


def test_the_newest_request_wins():
    """Of ten requests of a line while the first is worked on, the first is stopped, the last done, the rest never begun."""
    begun = []

    def work_of(number):
        def work(check):
            begun.append(number)
            for _ in range(400 if number == 0 else 1):
                check()
                time.sleep(0.01)
            return number

        return work

    async def main():
        latest = Latest()
        first = asyncio.create_task(latest.do("image", work_of(0)))
        while not begun:
            await asyncio.sleep(0.005)
        rest = [asyncio.create_task(latest.do("image", work_of(n))) for n in range(1, 10)]
        other = asyncio.create_task(latest.do("point", work_of("point")))
        done = await asyncio.gather(first, *rest, other, return_exceptions=True)
        latest.close()
        return done

    done = asyncio.run(main())
    assert begun == [0, 9, "point"]
    assert [result for result in done if not isinstance(result, Superseded)] == [9, "point"]


def test_closing_stops_the_work():
    async def main():
        latest = Latest()
        started = threading.Event()

        def work(check):
            started.set()
            while True:
                check()
                time.sleep(0.005)

        task = asyncio.create_task(latest.do("image", work))
        await asyncio.to_thread(started.wait)
        await asyncio.to_thread(latest.close)
        with pytest.raises(Superseded):
            await task

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_page_that_is_closed_stops_its_work():
    latest, began, ended = Latest(), threading.Event(), threading.Event()

    def work(check):
        began.set()
        try:
            for _ in range(2000):
                check()
                time.sleep(0.01)
        finally:
            ended.set()

    async def slow(request):
        return Answer.of(await latest.do("image", work))

    async def quick(request):
        return Answer.of(await latest.do("point", lambda check: 1))

    with served({"slow": slow, "quick": quick}) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        connection.request("GET", f"/{server.token}/slow", headers={"Host": f"127.0.0.1:{server.port}"})
        assert began.wait(10)
        connection.close()
        assert ended.wait(10)  # of 20 s of work
        assert asked(server, "quick")[2] == b"1"
    latest.close()


def test_lines_of_requests_are_bounded():
    async def main():
        latest = Latest()
        for number in range(200):
            await latest.do(f"image {number}", lambda check: None)
        latest.close()
        return len(latest._newest)

    assert asyncio.run(main()) <= 64


# --- the stages ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench():
    return Bench(probe=PROBE, engine="cpu", rows=64)


def test_a_picture_is_that_of_render(bench):
    """The same numbers as `ussim render`'s steps with the same settings."""
    view = replace(SMALL, n_transmits=None, tgc=False)
    made = bench.picture(view)
    acquisition = ussim.Acquisition(PROBE, ussim.imaging_waves(PROBE))
    x, z = PROBE.imaging.x, PROBE.imaging.z
    grid = ussim.ImageGrid(x=np.linspace(*x, made.grey.shape[1]), z=np.linspace(*z, 64))
    shortest = ussim.physics.shortest_wavelength(PROBE.center_frequency, PROBE.bandwidth, 1540.0)
    scatterers = ussim.phantoms.make("cysts", x, z, apex=0.0).scatterers(acquisition, 0, 3 * shortest)
    iq = ussim.demodulate(ussim.simulate(scatterers, acquisition, "cpu"))
    expected = ussim.log_compress(ussim.envelope_image(iq, grid, engine="cpu"), 50.0)
    np.testing.assert_array_equal(made.grey, np.round(255 * expected).astype(np.uint8))


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({}, []),
        ({"dynamic_range_db": 40.0}, []),
        ({"f_number": 1.0}, ["envelope"]),
        ({"attenuation_db_cm_mhz": 0.5}, ["simulate", "envelope"]),
        ({"n_transmits": 1}, ["simulate", "envelope"]),
        ({"seed": 1}, ["scatterers", "simulate", "envelope"]),
        ({"subject": "wires"}, ["scatterers", "simulate", "envelope"]),
    ],
)
def test_a_stage_is_made_again_only_where_its_settings_changed(monkeypatch, change, again):
    from ussim.look import bench as stages

    bench = Bench(probe=PROBE, engine="cpu", rows=32)
    bench.picture(SMALL)
    done = []

    def noting(name, function):
        return lambda *args, **options: done.append(name) or function(*args, **options)

    monkeypatch.setattr(ussim.phantoms.Phantom, "scatterers", noting("scatterers", ussim.phantoms.Phantom.scatterers))
    monkeypatch.setattr(stages, "simulate", noting("simulate", stages.simulate))
    monkeypatch.setattr(stages, "envelope_image", noting("envelope", stages.envelope_image))
    bench.picture(replace(SMALL, **change))
    assert done == again


def test_a_draft_is_coarser_and_says_so(bench):
    view = replace(SMALL, mean_distance_wavelengths=1.0, n_transmits=None)
    draft, picture = bench.picture(replace(view, draft=True)), bench.picture(view)
    assert draft.facts["draft"]
    assert not picture.facts["draft"]
    assert draft.facts["n_scatterers"] < picture.facts["n_scatterers"] / 3
    assert draft.grey.shape[0] == 128
    assert draft.facts["waves"].startswith("3 ")


def test_a_stopped_picture_is_made_afresh_the_next_time():
    bench = Bench(probe=PROBE, engine="cpu", rows=32)
    calls = []

    def check(*_):
        calls.append(1)
        raise Superseded

    with pytest.raises(Superseded):
        bench.picture(SMALL, check)
    assert bench.picture(SMALL).grey.max() == 255


def test_an_own_picture_takes_the_place_of_another():
    bench = Bench(probe=PROBE, engine="cpu", rows=32)
    assert "image" not in bench.subjects()
    levels = np.zeros((20, 30), np.uint8)
    levels[:, 15:] = 255
    bench.take(levels.tobytes(), 20, 30, "half.png")
    assert bench.subjects()[0] == "image"
    right = bench.picture(replace(SMALL, subject="image")).grey
    assert right[:, : right.shape[1] // 3].mean() < right[:, -right.shape[1] // 3 :].mean()
    bench.take(levels[:, ::-1].tobytes(), 20, 30, "other.png")
    left = bench.picture(replace(SMALL, subject="image")).grey
    assert left[:, : left.shape[1] // 3].mean() > left[:, -left.shape[1] // 3 :].mean()


@pytest.mark.parametrize(
    "values",
    [
        {"probe": "nobody's"},
        {"probe": 3},
        {"subject": "/etc/passwd"},
        {"subject": "image"},
        {"path": "/etc/passwd"},
        {"n_transmits": 0},
        {"n_transmits": 2.5},
        {"n_transmits": 1e9},
        {"f_number": "2"},
        {"f_number": -1},
        {"dynamic_range_db": 0},
        {"dynamic_range_db": None},
        {"attenuation_db_cm_mhz": float("nan")},
        {"depth_mm": [30, 20]},
        {"depth_mm": [0, 1e6]},
        {"depth_mm": "5 40"},
        {"depth_mm": [1, 2, 3]},
        {"seed": True},
        {"mean_distance_wavelengths": 1e-6},
        {"transmit": "laser"},
        {"draft": "yes"},
    ],
)
def test_settings_that_cannot_be_are_one_line(bench, values):
    with pytest.raises(ValueError, match=r"^\w+: .*(expected|got)") as failure:
        bench.picture(View.of({"probe": "small", "n_transmits": 1} | values))
    assert "\n" not in str(failure.value)


def test_the_page_knows_what_each_probe_offers(bench):
    described = bench.describe()
    assert set(ussim.probe_names()) <= set(described["probes"])
    json.dumps(described, allow_nan=False)
    assert described["probes"]["P4-2v"]["n_transmits"] == 15
    assert "focused" not in described["probes"]["C5-2v"]["transmits"]
    assert described["probes"]["small"]["depth_mm"] == [20, 34]


# --- the routes ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def look():
    paths, latest = routes(lambda: Bench(probe=PROBE, engine="cpu", rows=64), {"probe": "small"})
    with served(paths) as server:
        yield server
    latest.close()


FIELDS = {"probe": "small", "mean_distance_wavelengths": 3, "n_transmits": 2, "tab": "t"}


def test_the_page_is_whole_and_asks_nobody_else(look):
    status, headers, content = asked(look, "")
    assert status == 200
    assert headers["Content-Type"].startswith("text/html")
    text = content.decode()
    assert "/* shared." not in text
    assert "http://" not in text
    assert "https://" not in text
    assert asked(look, f"/{look.token}")[0] == 302


def test_an_image_comes_with_its_axes(look):
    status, headers, content = asked(look, "image", json.dumps(FIELDS).encode())
    assert status == 200
    facts = json.loads(headers["X-Facts"])
    assert len(content) == facts["shape"][0] * facts["shape"][1]
    assert facts["x_mm"] == [-8, 8]
    assert facts["z_mm"] == [20, 34]


def test_a_point_comes_with_its_widths(look):
    status, _, content = asked(look, "point", json.dumps(FIELDS | {"x_mm": 0.5, "z_mm": 28}).encode())
    assert status == 200
    point = json.loads(content)
    lateral, axial = point["widths_mm"]["6"]
    assert 1 < lateral < 6  # 16 elements, 4.8 mm: wavelength x depth / aperture is 3.3 mm
    assert 0.3 < axial < 0.8
    assert point["widths_mm"]["20"][1] > axial


@pytest.mark.parametrize(
    "place", [{"x_mm": 0}, {"x_mm": "a", "z_mm": 3}, {"x_mm": 1e9, "z_mm": 1}, {"x_mm": 0, "z_mm": -5}]
)
def test_a_point_nowhere_is_one_line(look, place):
    status, _, content = asked(look, "point", json.dumps(FIELDS | place).encode())
    assert status == 400
    assert "expected x and z in mm" in json.loads(content)["error"]


def test_a_picture_of_ones_own_is_bytes_and_no_path(look):
    bytes_kind = "application/octet-stream"
    status, _, content = asked(look, "picture/4x5/..%2F..%2Fa.png", bytes(20), kind=bytes_kind)
    assert (status, json.loads(content)["subjects"][0]) == (200, "image")
    for size, sent in (("4x5", 19), ("0x0", 0), ("9999x9999", 20), ("axb", 20), ("1e3x2", 2000)):
        status, _, content = asked(look, f"picture/{size}/a.png", bytes(sent), kind=bytes_kind)
        assert status == 400, size
        assert "picture: expected 2 to 1024 rows" in json.loads(content)["error"]


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="ctrl-C cannot be sent to one process on Windows")
def test_ctrl_c_ends_it_with_0():
    command = [sys.executable, "-m", "ussim", "look", "--no-browser"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        url = running.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        running.send_signal(signal.SIGINT)
        _, messages = running.communicate(timeout=60)
    assert running.returncode == 0
    assert messages.splitlines() == ["on this machine alone; ctrl-C ends it", "ended"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["missing.png"], 3, "missing.png"),
        (["a.png", "--phantom", "cysts"], 2, "expected an IMAGE or --phantom NAME, got both"),
        (["--slice", "3"], 2, "--slice and --plane go with an IMAGE"),
        (["--probe", "nobody's"], 2, "nobody's"),
        (["--port", "99999999"], 2, "99999999"),
    ],
)
def test_a_wrong_call_is_one_line(arguments, code, words, capsys, monkeypatch, tmp_path):
    from ussim.commands import console
    from ussim.commands.cli import cli

    monkeypatch.chdir(tmp_path)
    assert console.run(cli, "ussim", ["look", "--no-browser", *arguments]) == code
    messages = capsys.readouterr().err.strip()
    assert words in messages
    assert "\n" not in messages


def test_help_says_what_it_does():
    from ussim.commands.cli import cli

    text = CliRunner().invoke(cli, ["look", "--help"]).output
    for word in ("--no-browser", "--port", "ctrl-C", "token"):
        assert word in text
