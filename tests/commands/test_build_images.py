"""evalkit build-images, with a real engine and a real registry."""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

import evalkit
from tests.support.agents import break_agent, make_agent, make_sdist
from tests.support.images import Builds, by_instance, counts, docker
from tests.support.package_index import poisoned_index
from tests.support.processes import all_end, processes_of, running
from tests.support.registry import NO, Reply, fake_registry
from tests.support.requirements import require
from tests.support.tasks import make_task
from tests.support.waiting import eventually, wait_until

pytestmark = pytest.mark.engine


# --- plans ---


def test_the_plan_is_shown_and_nothing_is_built(builds: Builds) -> None:
    for name in ("one", "two"):
        builds.task(name, f"ENV NAME={name}")
    make_task(builds.tasks / "plain")
    finished = builds.build("--dry-run", agent_source=make_sdist(builds.evalkit.folder / "agent"))
    assert finished.code == 0, finished.stderr
    assert finished.document["planned"] == 3
    assert [image["instances"] for image in finished.document["images"]] == [["one"], ["plain"], ["two"]]
    assert finished.document["agent"].startswith(f"{builds.repository}:agent-")
    assert builds.tags() == set()
    builds.assert_nothing_left()


def test_one_file_of_the_agent_changes_all_tags_and_one_dockerfile_changes_one(builds: Builds) -> None:
    agent = make_agent(builds.evalkit.folder / "agent")
    for name in ("one", "two"):
        builds.task(name, f"ENV NAME={name}")
    make_task(builds.tasks / "plain")

    def tags() -> dict[str, str]:
        finished = builds.build("--dry-run", agent_source=agent)
        assert finished.document["sdist"]["builds"] == 1
        return {name: row["tag"] for name, row in by_instance(finished).items()}

    first = tags()
    assert tags() == first, "packing the same agent again changes nothing"
    builds.task("one", "ENV NAME=changed")
    second = tags()
    assert {name for name in first if first[name] != second[name]} == {"one"}
    (agent / "toy_agent.py").write_text("changed = True\n")
    third = tags()
    assert all(second[name] != third[name] for name in second)


@pytest.mark.slow
def test_a_base_that_moved_is_built_from_anew_and_what_was_built_is_found_without_its_registry(builds: Builds) -> None:
    base = f"base-{secrets.token_hex(4)}:1"
    with fake_registry() as registry:
        registry.upstream = builds.registry
        name = f"{registry.host}/{base}"

        def publish(content: str) -> None:
            command = ("run", "--name", base.replace(":", "-"), builds.busybox, "sh", "-c", f"echo {content} > /base")
            docker(*command)
            docker("commit", base.replace(":", "-"), f"{builds.registry}/{base}")
            docker("rm", base.replace(":", "-"))
            docker("push", "--quiet", f"{builds.registry}/{base}")
            docker("image", "rm", f"{builds.registry}/{base}")

        def build() -> str:
            finished = builds.build()
            assert finished.code == 0, finished.document
            return str(by_instance(finished)["one"]["tag"])

        builds.task("one", "RUN cat /base > /copy", base=name)
        publish("first")
        first = build()
        docker("image", "rm", name)
        publish("second")
        second = build()
        assert [builds.run(tag, "cat", "/copy").strip() for tag in (first, second)] == ["first", "second"]
        docker("image", "rm", name)
        registry.upstream = "127.0.0.1:9"
        registry.says(base, *[Reply(503)] * 9)
        finished = builds.infer("--agent", "nop")
        assert finished.code == 0, finished.stderr
        assert finished.document["buckets"]["resolved"] == 1
        docker("image", "rm", first)


# --- images ---


def test_the_agent_is_installed_once_and_runs_where_there_is_neither_python_nor_glibc(builds: Builds) -> None:
    builds.task("bare", "RUN mkdir /theirs; echo broken >/theirs/ssl.py", "ENV PYTHONPATH=/theirs")
    builds.task("theirs", "USER nobody", 'ENTRYPOINT ["/usr/bin/env"]', base=builds.python)
    make_task(builds.tasks / "plain")
    finished = builds.build(agent_source=make_sdist(builds.evalkit.folder / "agent"))
    assert counts(finished) == (3, 3, 0, 0), finished.stderr
    assert finished.document["agent"]["status"] == "built"
    for name, row in by_instance(finished).items():
        assert "install_agent" not in Path(builds.evalkit.folder, row["log"]).read_text(), "no image but one installs"
        said = builds.run(row["tag"], "toy-agent")
        assert said == "toy agent 1.0 /opt/evalkit-agent/venv child", name
    theirs = by_instance(finished)["theirs"]["tag"]
    assert builds.run(theirs, "sh", "-c", "id -un; command -v python3; command -v pip3") == (
        "nobody\n/usr/bin/python3\n/usr/bin/pip3"
    ), "the image keeps its user, and its own Python stands first"
    builds.assert_nothing_left()


def test_an_agent_can_be_installed_in_each_image(builds: Builds) -> None:
    builds.task("theirs", "USER nobody", base=builds.python)
    finished = builds.build(agent_source=make_sdist(builds.evalkit.folder / "agent"), strategy="install")
    assert counts(finished) == (1, 1, 0, 0), finished.stderr
    tag = by_instance(finished)["theirs"]["tag"]
    assert builds.run(tag, "sh", "-c", "toy-agent; id -un; ls -d /evalkit-context /run/secrets/*; true").splitlines()[
        :2
    ] == [
        "toy agent 1.0 /opt/evalkit-agent/venv child",
        "nobody",
    ]


@pytest.mark.slow
def test_folders_of_the_same_content_are_built_once_and_each_has_its_tag(builds: Builds) -> None:
    lines = ("RUN echo was built; head -c 16 /dev/urandom >/random", "USER 65534")
    for name in ("one", "two", "three"):
        builds.task(name, *(lines if name != "three" else (*lines, "ENV OTHER=1")))
    source = make_sdist(builds.evalkit.folder / "agent")
    finished = builds.build(agent_source=source)
    assert counts(finished) == (3, 3, 0, 0), finished.stderr
    rows = by_instance(finished)
    logs = {name: Path(builds.evalkit.folder, row["log"]).read_text() for name, row in rows.items()}
    assert sum("echo was built" in logs[name] for name in ("one", "two")) == 1
    assert len({row["tag"] for row in rows.values()}) == 3
    said = {name: builds.run(rows[name]["tag"], "sh", "-c", "md5sum /random; id -u; toy-agent") for name in rows}
    assert said["one"] == said["two"]
    assert counts(builds.build(agent_source=source)) == (3, 0, 3, 0)


@pytest.mark.slow
def test_an_agent_that_depends_on_evalkit_gets_this_one_and_none_of_an_index(builds: Builds) -> None:
    builds.task("theirs", base=builds.python)
    look = "import evalkit; print(evalkit.__version__, hasattr(evalkit, 'POISONED'))"
    with poisoned_index() as index:
        builds.evalkit.variables |= {"PIP_INDEX_URL": index.url, "PIP_NO_CACHE_DIR": "1"}
        given: dict[str, object] = {"strategy": "install", "install_env": "PIP_INDEX_URL,PIP_NO_CACHE_DIR"}
        sdist = make_sdist(builds.evalkit.folder / "agent", requires="evalkit")
        finished = builds.build(agent_source=sdist, **given)
    assert counts(finished) == (1, 1, 0, 0), finished.document
    tag = by_instance(finished)["theirs"]["tag"]
    said = builds.run(tag, "/opt/evalkit-agent/venv/bin/python3", "-I", "-c", look)
    assert said == f"{evalkit.__version__} False"
    assert "httpx" in index.served
    assert not index.served & {"evalkit", "agent-evalkit"}


@pytest.mark.slow
def test_what_the_install_was_given_is_in_no_image(builds: Builds) -> None:
    builds.task("one")
    folder = builds.evalkit.folder
    agent = make_agent(folder / "agent")
    backend = agent / "backend.py"
    backend.write_text(
        "import os\n"
        "if os.path.exists('/opt/evalkit-agent'):\n"
        "    assert os.environ['INDEX_PASSWORD'] == 'hunter-2', 'not given'\n"
        "    assert 'from-the-file' in open(os.environ['PIP_CONFIG_FILE']).read()\n" + backend.read_text()
    )
    (folder / "pip.conf").write_text("# from-the-file\n")
    builds.evalkit.variables["INDEX_PASSWORD"] = "hunter-2"
    given: dict[str, object] = {"install_env": "INDEX_PASSWORD", "pip_conf": folder / "pip.conf"}
    finished = builds.build(agent_source=agent, **given)
    assert counts(finished) == (1, 1, 0, 0), finished.stderr
    shown = docker("image", "history", "--no-trunc", by_instance(finished)["one"]["tag"])
    shown += docker("image", "history", "--no-trunc", finished.document["agent"]["tag"])
    shown += docker("image", "inspect", by_instance(finished)["one"]["tag"])
    assert "hunter-2" not in shown
    found = subprocess.run(["grep", "-rl", "hunter-2", folder / "builds"], capture_output=True, text=True, check=False)
    assert found.stdout == ""
    missing = builds.build(agent_source=agent, install_env="NOT_SET_ANYWHERE")
    missing.refused(2, "config", "NOT_SET_ANYWHERE")


def test_what_exists_is_skipped_unless_it_is_forced(builds: Builds) -> None:
    for name in ("one", "two"):
        builds.task(name, f"RUN echo {name} >/name")
    assert counts(builds.build()) == (2, 2, 0, 0)
    assert counts(builds.build()) == (2, 0, 2, 0)
    builds.task("three", "RUN echo three >/name")
    assert counts(builds.build()) == (3, 1, 2, 0)
    forced = builds.build("--force", "--select", "two,three")
    assert counts(forced) == (2, 2, 0, 0)
    assert [row["status"] for row in builds.manifest()] == [
        row["status"] for row in builds.manifest() if row["tag"] and row["finished_at"]
    ]
    assert Counter(row["status"] for row in builds.manifest()) == {"built": 5, "skipped": 4}
    builds.assert_nothing_left()


def test_what_fails_does_not_hinder_the_rest(builds: Builds) -> None:
    builds.task("fine")
    builds.task("broken", "RUN echo the reason; exit 3")
    builds.task("homeless", base=f"{builds.registry}/not-there:1")
    builds.task("unreadable", "NONSENSE")
    finished = builds.build(retries=1)
    assert finished.code == 1
    assert counts(finished) == (4, 1, 0, 3), finished.stderr
    rows = by_instance(finished)
    assert "the reason" in rows["broken"]["error"]
    assert rows["broken"]["attempts"] == 2
    assert "the reason" in Path(builds.evalkit.folder, rows["broken"]["log"]).read_text()
    assert "there is no image" in rows["homeless"]["error"]
    assert "NONSENSE" in rows["unreadable"]["error"]
    assert {row["tag"] for row in builds.manifest()} == {row["tag"] for row in rows.values()}
    again = builds.build(retries=0)
    assert counts(again) == (4, 0, 1, 3), "what failed is tried again, what is there is not"


def test_an_agent_that_cannot_be_packed_ends_the_command_at_once(builds: Builds) -> None:
    builds.task("one")
    agent = make_agent(builds.evalkit.folder / "agent")
    break_agent(agent)
    finished = builds.build(agent_source=agent)
    finished.refused(3, "sdist")
    assert "the frobnicator is missing" in finished.document["error"]["message"]
    assert finished.document["sdist"]["builds"] == 1
    assert finished.document["images"] == []
    builds.assert_nothing_left()


def test_an_agent_that_cannot_be_installed_ends_the_command(builds: Builds) -> None:
    builds.task("one")
    builds.task("two", "ENV A=1")
    agent = make_agent(builds.evalkit.folder / "agent")
    backend = agent / "backend.py"
    backend.write_text(backend.read_text().replace("def build_wheel", "def build_nothing"))
    finished = builds.build(agent_source=agent, retries=0)
    finished.refused(3, "agent_image")
    assert "build_wheel" in finished.document["error"]["message"]
    assert builds.tags() == set()


@pytest.mark.slow
def test_the_classic_builder_is_the_last_resort(builds: Builds) -> None:
    real = shutil.which("docker")
    programs = builds.evalkit.folder / "programs"
    programs.mkdir()
    shim = programs / "docker"
    refusal = 'if [ "$1" = buildx ] || [ "$DOCKER_BUILDKIT" = 1 ]; then echo no BuildKit here >&2; exit 1; fi'
    shim.write_text(f'#!/bin/sh\n{refusal}\nexec {real} "$@"\n')
    shim.chmod(0o755)
    others = [folder for folder in os.environ["PATH"].split(":") if not Path(folder, "docker").exists()]
    builds.evalkit.variables["PATH"] = ":".join([str(programs), *others])
    builds.task("one")
    finished = builds.build(agent_source=make_sdist(builds.evalkit.folder / "agent"))
    assert counts(finished) == (1, 1, 0, 0), finished.stderr
    row = by_instance(finished)["one"]
    assert "Step 1/" in Path(builds.evalkit.folder, row["log"]).read_text()
    assert builds.run(row["tag"], "toy-agent").startswith("toy agent 1.0")


# --- trouble ---


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_of_it(builds: Builds, number: int, code: int) -> None:
    builds.task("done")
    for name in range(4):
        builds.task(f"slow-{name}", f"RUN echo {builds.repository}-{name}; sleep 601")
    process = builds.start("--workers", 5)
    wait_until(lambda: len(builds.manifest()) == 1 and len(running("sleep 601")) == 4, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert b"Traceback" not in err
    document = json.loads(out)
    assert (document["planned"], document["built"], document["failed"]) == (5, 1, 0)
    assert all_end(builds.evalkit.folder)
    assert eventually(lambda: not running("sleep 601")), "nor does the engine go on"
    builds.assert_nothing_left()


def test_packing_is_ended_by_a_signal_too(builds: Builds) -> None:
    builds.task("one")
    agent = make_agent(builds.evalkit.folder / "agent")
    (agent / "backend.py").write_text(
        "import time\ndef build_sdist(*_):\n    open('begun', 'w').close(); time.sleep(602)\n"
    )
    process = builds.start(agent_source=agent)
    wait_until((agent / "begun").exists, process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert json.loads(out)["images"] == []
    builds.assert_nothing_left()


@pytest.mark.slow
def test_killed_again_and_again_it_still_builds_everything_once(builds: Builds) -> None:
    for number in range(10):
        builds.task(f"task-{number}", f"RUN echo {builds.repository}; sleep 0.57; echo {number} >/name")
    for moment in (0.9, 1.8, 2.6, 3.5):
        process = builds.start("--workers", 3)
        time.sleep(moment * random.uniform(0.7, 1.3))
        process.kill()
        process.communicate()
    finished = builds.build("--workers", 3)
    planned, built, skipped, failed = counts(finished)
    assert (planned, built + skipped, failed) == (10, 10, 0), finished.stderr
    assert len(builds.tags()) == 10
    most = Counter(row["tag"] for row in builds.manifest() if row["status"] == "built")
    assert max(most.values(), default=1) == 1, "nothing was built twice"
    for name, row in by_instance(finished).items():
        assert builds.run(row["tag"], "cat", "/name") == name.removeprefix("task-")
    assert not running("sleep 0.57")
    builds.assert_nothing_left()


@pytest.mark.slow
def test_a_killed_worker_costs_one_more_try_of_one_image(builds: Builds) -> None:
    for name in ("one", "two"):
        builds.task(name, f"RUN echo {builds.repository}; sleep 3; echo {name} >/name")
    process = builds.start("--workers", 2)
    workers: list[int] = []

    def both_build() -> bool:
        found = processes_of(builds.evalkit.folder)
        workers[:] = [pid for pid, command in found.items() if "spawn_main" in command]
        return (
            len(workers) == 2
            and len([each for each in found.values() if " build " in each and "Dockerfile" in each]) >= 2
        )

    wait_until(both_build, process)
    os.kill(workers[0], signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    document = json.loads(out)
    assert document["built"] == 2
    assert sorted(row["attempts"] for row in document["images"]) == [1, 2]
    builds.assert_nothing_left()


def test_a_build_that_takes_too_long_is_given_up(builds: Builds) -> None:
    builds.task("endless", f"RUN echo {builds.repository}; sleep 603")
    finished = builds.build("--set", "timeouts.build=3s")
    assert counts(finished) == (1, 0, 0, 1)
    row = by_instance(finished)["endless"]
    assert "was not done after 3 s" in row["error"]
    assert row["attempts"] == 1
    assert eventually(lambda: not running("sleep 603"))


@pytest.mark.slow
def test_a_build_that_says_nothing_is_tried_again(builds: Builds) -> None:
    builds.task("stuck", f"RUN echo {builds.repository}; sleep 604")
    finished = builds.build(stall="2s", retries=1)
    row = by_instance(finished)["stuck"]
    assert "stalled" in row["error"]
    assert row["attempts"] == 2
    assert eventually(lambda: not running("sleep 604"))


def test_without_an_engine_it_says_so(builds: Builds) -> None:
    builds.task("one")
    builds.evalkit.variables["DOCKER_HOST"] = "unix:///nowhere/docker.sock"
    builds.build().refused(3, "engine", "/nowhere/docker.sock")


@pytest.mark.parametrize("files", [24, 32])
def test_without_descriptors_it_says_so_and_the_next_call_builds_the_rest(builds: Builds, files: int) -> None:
    for name in range(8):
        builds.task(f"task-{name}", f"RUN echo {builds.repository}-{name} >/name")
    finished = builds.build_below(f"ulimit -n {files}")
    finished.refused(3, "environment", "no more files can be opened", "ulimit -n", "images.workers")
    assert finished.document["failed"] == 0, "no image is blamed"
    rest = builds.build()
    assert counts(rest) == (8, 8 - finished.document["built"], finished.document["built"], 0), rest.stderr
    builds.assert_nothing_left()


@pytest.mark.parametrize("processes", [3, 8, 14])
def test_without_processes_it_says_so_and_the_next_call_builds_the_rest(builds: Builds, processes: int) -> None:
    for name in range(8):
        builds.task(f"task-{name}", f"RUN echo {builds.repository}-{name} >/name")
    group = Path("/sys/fs/cgroup/pids", builds.repository.rpartition("/")[2])
    require("engine", os.access(group.parent, os.W_OK), "there is no cgroup for processes")
    group.mkdir()
    try:
        (group / "pids.max").write_text(str(processes))
        finished = builds.build_below(f"echo $$ >{group}/cgroup.procs")
        assert eventually(lambda: not (group / "cgroup.procs").read_text())
    finally:
        group.rmdir()
    finished.refused(3, "environment", "no more processes can be started", "pids.max")
    rest = builds.build()
    assert counts(rest)[3] == 0, rest.stderr
    assert len(builds.tags()) == 8
    builds.assert_nothing_left()


def test_two_commands_do_not_write_to_one_build_folder(builds: Builds) -> None:
    builds.task("slow", "RUN sleep 605")
    process = builds.start()
    wait_until(lambda: len(running("sleep 605")) > 0, process)
    builds.build().refused(3, "locked", str(process.pid))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"agent_source": "nowhere"}, ["images.agent_source", "nowhere"]),
        ({"repository": "Not/A Name"}, ["images.repository", "Not/A Name"]),
        ({"agent_source": "{agent}", "constraints": "nowhere.txt"}, ["images.constraints", "nowhere.txt"]),
        ({"agent_source": "{agent}", "ca_bundle": "nowhere.pem"}, ["images.ca_bundle", "nowhere.pem"]),
        ({"disk_floor": "lots"}, ["images.disk_floor"]),
    ],
)
def test_mistakes_in_the_config_are_named(builds: Builds, keys: dict[str, str], words: list[str]) -> None:
    builds.task("one")
    agent = make_sdist(builds.evalkit.folder / "agent")
    given = {key: value.format(agent=agent) for key, value in keys.items()}
    finished = builds.build(**given)
    assert finished.code == 2, finished.stderr
    for word in words:
        assert word in finished.complaint


# --- disk and registry ---


@pytest.mark.slow
def test_pushed_images_can_be_dropped_and_are_not_built_again(builds: Builds) -> None:
    for name in ("one", "two"):
        builds.task(name, f"RUN echo {builds.repository} {name} >/name")
    before = len(build_cache())
    first = builds.build("--push", "--drop-after-push")
    assert counts(first) == (2, 2, 0, 0), first.stderr
    assert first.document["pushed"] == 2
    assert builds.tags() == set()
    assert not [each for each in build_cache() if builds.repository in each], "nor does the cache keep its layers"
    assert len(build_cache()) - before <= 6
    again = builds.build("--push", "--drop-after-push")
    assert counts(again) == (2, 0, 2, 0)
    assert again.document["pushed"] == 0
    for name, row in by_instance(again).items():
        docker("pull", "--quiet", row["tag"])
        assert builds.run(row["tag"], "cat", "/name") == f"{builds.repository} {name}"


def build_cache() -> list[str]:
    records = json.loads(docker("system", "df", "--verbose", "--format", "{{json .BuildCache}}")) or []
    return [each["Description"] for each in records if each["CacheType"] == "regular"]


@pytest.mark.slow
def test_what_is_built_but_not_pushed_is_only_pushed(builds: Builds) -> None:
    builds.task("one")
    assert counts(builds.build()) == (1, 1, 0, 0)
    finished = builds.build("--push")
    assert counts(finished) == (1, 0, 1, 0)
    assert finished.document["pushed"] == 1
    assert builds.build("--push").document["pushed"] == 0


@pytest.mark.slow
def test_who_does_not_know_whether_an_image_exists_does_not_build_it(builds: Builds) -> None:
    builds.task("one")
    with fake_registry() as registry:
        builds.repository = f"{registry.host}/evals"
        (planned,) = builds.build("--dry-run").document["images"]
        image = planned["tag"].removeprefix(f"{registry.host}/")
        registry.says(image, Reply(503))
        finished = builds.build(retries=1)
        assert counts(finished) == (1, 0, 0, 1)
        assert "503" in by_instance(finished)["one"]["error"]
        assert len(registry.times(image)) == 2
        registry.says(image, Reply(429, (("Retry-After", "1"),)), NO)
        assert counts(builds.build(retries=1)) == (1, 1, 0, 0)
        docker("image", "rm", planned["tag"])


@pytest.mark.slow
def test_bases_are_pulled_once_a_few_at_a_time_and_again_when_the_registry_says(builds: Builds) -> None:
    names = [f"base-{secrets.token_hex(4)}" for _ in range(4)]
    for name in names:
        docker("tag", builds.busybox, f"{builds.registry}/{name}:1")
        docker("push", "--quiet", f"{builds.registry}/{name}:1")
        digest = docker("image", "inspect", "--format", "{{json .RepoDigests}}", f"{builds.registry}/{name}:1")
        docker("image", "rm", f"{builds.registry}/{name}:1")
    with fake_registry() as registry:
        registry.upstream, registry.slowness = builds.registry, 0.1
        bases = [f"{registry.host}/{name}:1" for name in names]
        found = Reply(headers=(("Docker-Content-Digest", json.loads(digest)[0].partition("@")[2]),))
        registry.says(f"{names[0]}:1", found, *[Reply(429, (("Retry-After", "1"),))] * 3)
        for number, base in enumerate(bases):
            for copy in range(2):
                builds.task(f"task-{number}-{copy}", f"ENV COPY={copy}", base=base)
        finished = builds.build(pulls=2, retries=2)
        assert counts(finished) == (8, 8, 0, 0), finished.document
        assert 1 <= registry.most_in_transit <= 2
        docker("image", "rm", *bases)


@pytest.mark.slow
def test_fifty_images_from_one_sdist_are_built_pushed_removed_and_pulled_by_a_run(builds: Builds) -> None:
    for number in range(50):
        has_both = f'[ "$(toy-agent)" = "toy agent 50 /opt/evalkit-agent/venv child" ] && [ $NUMBER = {number} ]'
        builds.task(f"task-{number:02}", f"ENV NUMBER={number}", tests=has_both)
    agent = make_agent(builds.evalkit.folder / "agent", version="50")
    finished = builds.build("--push", agent_source=agent)
    assert counts(finished) == (50, 50, 0, 0), finished.stderr[-2000:]
    assert finished.document["pushed"] == 50
    assert finished.document["sdist"]["builds"] == 1
    logs = list((builds.evalkit.folder / "builds").rglob("*.log"))
    assert len([log for log in logs if "install_agent.py" in log.read_text()]) == 1, "one install for all"
    tags = {name: row["tag"] for name, row in by_instance(finished).items()}
    docker("image", "rm", *tags.values())
    again = builds.build("--push", agent_source=agent)
    assert counts(again) == (50, 0, 50, 0)
    assert builds.tags() == set()
    run = builds.infer("--agent", "command", "--set", "agent.command=toy-agent", "--workers", 8, agent_source=agent)
    assert run.code == 0, run.stderr[-2000:]
    assert run.document["buckets"]["resolved"] == 50
    assert builds.tags() == set(tags.values()), "pulled, and not built"
    builds.assert_nothing_left()


@pytest.mark.slow
def test_a_real_agent_of_the_package_index_runs_in_an_image_that_has_nothing(builds: Builds) -> None:
    """mini-swe-agent depends on packages that are compiled: pydantic-core, tokenizers, numpy and more."""
    downloads = builds.evalkit.folder / "downloads"
    pip = (
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary",
        ":all:",
        "--dest",
        str(downloads),
        "mini-swe-agent",
    )
    subprocess.run(["python3", "-m", *pip], check=True, capture_output=True)
    (sdist,) = downloads.glob("mini_swe_agent-*.tar.gz")
    version = sdist.name.removeprefix("mini_swe_agent-").removesuffix(".tar.gz")
    builds.task("bare")
    finished = builds.build(agent_source=sdist)
    assert counts(finished) == (1, 1, 0, 0), finished.stderr[-2000:]
    tag = by_instance(finished)["bare"]["tag"]
    assert f"mini-swe-agent version {version}" in builds.run(tag, "mini-swe-agent", "--help")
    imported = "import pydantic_core, tokenizers, numpy; print(numpy.ones(3) @ numpy.ones(3))"
    assert builds.run(tag, "/opt/evalkit-agent/venv/bin/python3", "-c", imported).endswith("3.0")


@pytest.mark.slow
def test_below_the_floor_nothing_is_started_and_what_was_built_stays_known(builds: Builds) -> None:
    builds.task("one")
    assert counts(builds.build()) == (1, 1, 0, 0)
    builds.task("two", "ENV A=1")
    finished = builds.build(disk_floor="900t")
    finished.refused(3, "disk_floor", "images.disk_floor")
    assert finished.document["planned"] == 2
    assert [row["status"] for row in finished.document["images"]] == ["skipped"]
    assert len(builds.tags()) == 1
    assert counts(builds.build(disk_floor=0)) == (2, 1, 1, 0)
