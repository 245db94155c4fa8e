"""`relay check --live`, `relay models --fetch`, the page's test, at providers that are played."""

from pathlib import Path

import pytest
from aiohttp import ClientSession
from fake_upstream import Answer, FakeUpstream, Seen, answer_well, chat_error, whole
from relay_process import SECRET, Ran, Start, run, text_of
from talk import DIALECTS, JSON, UPSTREAM_KEY, one, provider


async def check(home: Path, config: JSON, *more: str) -> Ran:
    (home / "config.yaml").write_text(text_of(config, "127.0.0.1:9"))
    return await run("check", "--live", *more, "-c", "config.yaml", cwd=home, within=110)


def row(ran: Ran, dialect: str) -> list[str]:
    return next(line.split() for line in ran.stdout.splitlines() if f" {dialect} " in f"{line} ")


async def test_every_dialect_of_a_provider_is_tried_in_every_way(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    endpoints = dict.fromkeys(DIALECTS, upstream.url)
    config = one("", models=["m"])
    config["providers"]["first"] |= {"endpoint": endpoints}
    del config["providers"]["first"]["api_format"]
    ran = await check(tmp_path, config, "--yes")
    assert ran.status == 0, ran.output
    assert f"{4 * len(DIALECTS)} small requests, at most" in ran.stdout
    table = [line for line in ran.stdout.splitlines() if line.startswith("first  ")]
    assert len(table) == len(DIALECTS)
    assert "FAILED" not in ran.stdout
    paths = {seen.path for seen in upstream.requests}
    assert {"/v1/messages", "/v1/chat/completions"} <= paths
    assert all(UPSTREAM_KEY in str(seen.headers) for seen in upstream.requests)


async def test_each_credential_of_each_plan_is_tried_and_what_fails_is_explained(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    good, bad = f"{SECRET}-good", f"{SECRET}-bad"

    def answer(seen: Seen) -> Answer:
        if bad in seen.headers["Authorization"]:
            return chat_error(401, f"invalid key {bad}")
        return answer_well(seen)

    upstream.script(answer)
    ran = await check(tmp_path, one(upstream, models=["m"], api_key=[good, bad]), "--yes")
    assert ran.status == 1
    rows = [line for line in ran.stdout.splitlines() if line.startswith("first  ")]
    assert ["FAILED" in line for line in rows] == [False, True]
    assert "refused relay's credential; check api_key" in ran.stdout
    assert SECRET not in ran.output


async def test_nothing_is_sent_before_it_is_agreed_to(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    ran = await check(tmp_path, one(upstream, models=["m"]))
    assert (ran.status, "--yes" in ran.stderr) == (2, True)
    assert "to be sent: 4 small requests" in ran.stdout
    assert upstream.requests == []
    ran = await check(tmp_path, one(upstream), "--yes", "--provider", "frist")
    assert (ran.status, "did you mean 'first'?" in ran.stderr) == (2, True)
    assert upstream.url not in ran.stdout  # of the others nothing is said


async def test_a_provider_whose_models_nobody_names_is_tried_with_one_it_lists(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    upstream.script(whole({"data": [{"id": "listed-1"}]}), path="/models")
    ran = await check(tmp_path, one(upstream), "--yes")
    assert ran.status == 0, ran.output
    assert "listed-1" in ran.stdout


async def test_models_are_fetched_ready_to_paste(upstream: FakeUpstream, tmp_path: Path) -> None:
    listed = {"data": [{"id": "b-2"}, {"id": "a/1"}, {"id": "here"}]}
    upstream.script(whole(listed), path="/models")
    config = one(upstream, models=["here"])
    config["providers"]["second"] = provider("http://127.0.0.1:9")
    (tmp_path / "config.yaml").write_text(text_of(config, "127.0.0.1:7"))
    ran = await run("models", "--fetch", "-c", "config.yaml", cwd=tmp_path)
    assert ran.status == 0, ran.output
    assert 'first:  # 3 served, 2 not yet here\n  models:\n    "a/1":\n    "b-2":\n' in ran.stdout
    assert "second:  # no list (second: cannot be reached (Connection refused)" in ran.stdout


@pytest.mark.parametrize(("name", "status"), [("first", 200), ("nobody", 404)])
async def test_the_page_tests_a_provider(
    name: str, status: int, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, models=["m"]) | {"admin_key": SECRET})
    head = {"Authorization": f"Bearer {SECRET}"}
    url = f"{server.url}/admin/test"
    async with http.post(url, json={"provider": name}, headers=head) as response:
        assert response.status == status
        said = await response.json()
    if status == 200:
        assert said["well"], said
        assert "first" in said["said"]
        assert SECRET not in said["said"]
