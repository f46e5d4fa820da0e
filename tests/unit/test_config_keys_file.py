"""Keys in a file of their own: read as those of the configuration, with mistakes that name the file they are in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest

from extauthz.config.load import load
from extauthz.config.snapshot import Snapshot
from extauthz.config.source import FILE_BYTES_MAX
from extauthz.errors import ConfigError

ENVIRON = {"ANA_KEY": "sk-ana", "KEYS": "keys.yaml", "TEAM": "gone"}
CONFIG = """
general_settings: {master_key: sk-master}
extauthz:
  keys_file: keys.yaml
  organizations: {acme: {}}
  teams: {research: {max_budget: 10}}
  users: {ana: {}}
  keys: [{key: sk-here, team: research}]
"""


HALF_WRITTEN = (
    "keys.yaml:3: this is not YAML: did not find expected ',' or '}'; check the indentation and the quotes around it"
)
NO_LIST = "keys.yaml:1: the file must be a list: write lines that begin with `- `, or [] for none"


def hashed(key: str) -> str:
    """Give the SHA-256 of a key."""
    return sha256(key.encode()).hexdigest()


class Files:
    """A configuration and its keys file, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.config, self.keys = folder / "config.yaml", folder / "keys.yaml"
        self.config.write_text(CONFIG, encoding="utf-8")

    def load(self, keys: str | bytes, environ: dict[str, str] | None = None) -> Snapshot:
        """Load with a keys file."""
        self.keys.write_bytes(keys if isinstance(keys, bytes) else keys.encode())
        return load(self.config, ENVIRON if environ is None else environ)

    def mistakes(self, keys: str | bytes) -> list[str]:
        """Load with a bad keys file, and give the mistakes as `file:line: message`."""
        with pytest.raises(ConfigError) as refused:
            self.load(keys)
        return [f"{mistake.file.name}:{mistake.line}: {mistake.message}" for mistake in refused.value.mistakes]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Load configurations with keys files."""
    return Files(tmp_path)


def test_its_keys_are_like_those_of_the_configuration(files: Files) -> None:
    """A key of the file has its payers and budgets, from the environment as well, beside the configuration's own."""
    directory = files.load(
        f"""
        - {{key: os.environ/ANA_KEY, key_alias: laptop, user: ana, team: research, max_budget: 1, budget_duration: 1d}}
        - {{key_sha256: {hashed("sk-made-elsewhere")}, organization: acme}}
        """
    ).directory

    ana, made, here = (directory.find(hashed(key)) for key in ("sk-ana", "sk-made-elsewhere", "sk-here"))
    assert ana is not None
    assert made is not None
    assert here is not None
    assert "laptop" == ana.name
    assert ["global", "team:research", "member:research/ana", "user:ana"] == [
        scope.scope.text for scope in ana.scopes[:-1]
    ]
    assert 1 == len(ana.scopes[-1].budgets)
    assert "org:acme" in [scope.scope.text for scope in made.scopes]


@pytest.mark.parametrize("written", ["keys.yaml", "./keys.yaml", "os.environ/KEYS", "{folder}/keys.yaml"])
def test_its_path_begins_at_the_configuration(
    files: Files, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    """Wherever the server is started, a relative path means the same file."""
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    path = written.format(folder=files.config.parent)
    files.config.write_text(CONFIG.replace("keys_file: keys.yaml", f"keys_file: {path}"), encoding="utf-8")

    assert files.load("- {key: sk-more}").directory.find(hashed("sk-more")) is not None


def test_no_keys_are_an_empty_list(files: Files) -> None:
    """A file that says that there are no keys is right."""
    assert files.load("[]").directory.find(hashed("sk-here")) is not None


@pytest.mark.parametrize(
    ("keys", "mistakes"),
    [
        pytest.param("", [NO_LIST], id="empty"),
        pytest.param("keys: []", [NO_LIST], id="a mapping"),
        pytest.param(
            "\n- {key: sk-a, key: sk-b}",
            ["keys.yaml:2: `key` stands here a second time, after line 2: keep one"],
            id="a duplicate name",
        ),
        pytest.param(
            "- {key: sk-a\n- ",
            [HALF_WRITTEN],
            id="half written",
        ),
        pytest.param(
            "- {key: os.environ/GONE}",
            ["keys.yaml:1: the environment variable GONE is not set: set it where extauthz starts"],
            id="no variable",
        ),
        pytest.param(
            "- {}\n- {key: sk-a, kye: b}",
            [
                "keys.yaml:1: keys[0]: write either key (best as os.environ/NAME) or key_sha256",
                "keys.yaml:2: keys[1].kye: unknown key; did you mean `key`?",
            ],
            id="fields",
        ),
        pytest.param(
            "- {key: sk-a, team: reserch}\n- {key: sk-b, user: ben}\n- {key: sk-c, organization: os.environ/TEAM}",
            [
                "keys.yaml:1: keys[0].team: `reserch` is not in extauthz.teams; did you mean `research`?",
                "keys.yaml:2: keys[1].user: `ben` is not in extauthz.users; known here: ana",
                "keys.yaml:3: keys[2].organization: the value of TEAM is not in extauthz.organizations; add it there",
            ],
            id="payers",
        ),
        pytest.param(
            "- {key: sk-a}\n- {key: sk-a}",
            ["keys.yaml:2: keys[1]: this is the key of line 1 again: keep one"],
            id="twice in the file",
        ),
        pytest.param(
            f"- {{key_sha256: {hashed('sk-here')}}}",
            ["keys.yaml:1: keys[0]: this is the key of CONFIG:8 again: keep one"],
            id="in both files",
        ),
        pytest.param(
            "- {key: sk-master}",
            ["keys.yaml:1: keys[0]: this is the key of CONFIG:2 again: keep one"],
            id="the admin's",
        ),
        pytest.param(b"- {key: \xff}", ["keys.yaml:1: this is not UTF-8: save the file as UTF-8"], id="not UTF-8"),
        pytest.param(
            b" " * (FILE_BYTES_MAX + 1),
            [f"keys.yaml:1: the file is larger than {FILE_BYTES_MAX} bytes: split off what is not needed"],
            id="too large",
        ),
    ],
)
def test_mistake(files: Files, keys: str | bytes, mistakes: list[str]) -> None:
    """A mistake names the keys file and its line, and no key."""
    assert [mistake.replace("CONFIG", str(files.config)) for mistake in mistakes] == files.mistakes(keys)


def test_a_file_that_is_not_there(files: Files) -> None:
    """It is named with what to do, beside the mistakes of the configuration."""
    files.config.write_text(CONFIG.replace("sk-here", "''"), encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load(files.config, ENVIRON)

    assert (
        f"{files.config}:8: extauthz.keys[0].key: the secret is empty: write it, or os.environ/NAME\n"
        f"{files.keys}:1: the file cannot be read: No such file or directory; check the path and its permissions"
    ) == str(refused.value)


@dataclass(slots=True)
class Busy(Mapping[str, str]):
    """An environment in which something is done each time that a variable is looked up: files are read by then."""

    do: Callable[[], object]
    variables: Mapping[str, str] = field(default_factory=lambda: ENVIRON)

    def __getitem__(self, name: str) -> str:
        self.do()
        return self.variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.variables)

    def __len__(self) -> int:
        return len(self.variables)


class TestOneState:
    """Files that change while they are read."""

    def test_a_snapshot_is_of_one_state(self, files: Files) -> None:
        """Two files that are replaced after the first was read: the snapshot is wholly of the new ones."""
        files.config.write_text(f"{CONFIG}  token: os.environ/ANA_KEY\n", encoding="utf-8")
        files.keys.write_text("- {key: sk-old}", encoding="utf-8")

        def replace_both() -> None:
            files.config.write_text(f"{CONFIG}  token: os.environ/TEAM\n", encoding="utf-8")
            files.keys.write_text("- {key: sk-new}", encoding="utf-8")

        snapshot = load(files.config, Busy(replace_both))

        assert snapshot.settings.token is not None
        assert "gone" == snapshot.settings.token.get_secret_value()
        assert snapshot.directory.find(hashed("sk-new")) is not None

    def test_a_file_that_was_still_being_written_is_read_again(self, files: Files) -> None:
        """Its first half was there, its second came: no mistake is told of what is whole by now."""
        whole = f"{CONFIG}  token: os.environ/ANA_KEY\n  on_abort: zero\n"
        files.config.write_text(whole.removesuffix("ero\n"), encoding="utf-8")
        files.keys.write_text("[]", encoding="utf-8")

        assert (
            "zero"
            == load(files.config, Busy(lambda: files.config.write_text(whole, encoding="utf-8"))).settings.on_abort
        )

    def test_files_that_never_rest_are_given_up(self, files: Files) -> None:
        """Who writes faster than anybody can read is told how to replace a file."""
        files.config.write_text(f"{CONFIG}  token: os.environ/ANA_KEY\n", encoding="utf-8")
        files.keys.write_text("[]", encoding="utf-8")

        def write_more() -> None:
            files.config.write_text(files.config.read_text(encoding="utf-8") + "\n", encoding="utf-8")

        with pytest.raises(ConfigError, match="faster than they can be read: put new ones in their place, by mv"):
            load(files.config, Busy(write_more))

    def test_a_pipe_is_read_once(self, files: Files) -> None:
        """`--config <(…)`: what can be read only once is not waited for a second time."""
        reader, writer = os.pipe()
        os.write(writer, b"extauthz: {hide_amounts: true}")
        os.close(writer)
        try:
            assert load(Path(f"/proc/self/fd/{reader}"), {}).settings.hide_amounts
        finally:
            os.close(reader)


class TestDigest:
    """`Snapshot.digest`."""

    def test_is_the_same_wherever_the_same_is_read(
        self, files: Files, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """Replicas show the same, wherever their files are mounted and whatever else is in their environment."""
        other = Files(tmp_path_factory.mktemp("other"))

        one, two = files.load("[]"), other.load("[]", {**ENVIRON, "HOSTNAME": "pod-2"})

        assert one.digest == two.digest
        assert 64 == len(one.digest)
        assert (other.config, other.keys) == two.files

    def test_changes_with_all_that_is_read(self, files: Files) -> None:
        """Another word in either file, or another value of a variable that is used, shows."""
        keys = "- {key: os.environ/ANA_KEY}"
        digests = [files.load(keys).digest, files.load(keys, {**ENVIRON, "ANA_KEY": "sk-2"}).digest]
        digests.append(files.load(keys + " # a remark").digest)
        files.config.write_text(CONFIG + "  hide_amounts: true\n", encoding="utf-8")
        digests.append(files.load(keys).digest)

        assert 4 == len(set(digests))

    def test_shows_no_secret(self, files: Files) -> None:
        """What a snapshot prints of where it comes from has no key and no value of a variable."""
        printed = repr(files.load("- {key: os.environ/ANA_KEY}"))

        assert [] == [secret for secret in ("sk-ana", "sk-here", "sk-master") if secret in printed]


def test_what_changed_is_named_by_section(files: Files) -> None:
    """Two snapshots tell in which sections their files differ: remarks and order of lines are no difference."""
    before = files.load("[]")
    files.config.write_text("# Budgets\n" + CONFIG.replace("10}", "11}") + "litellm_settings: {}\n", encoding="utf-8")
    after = files.load("- {key: sk-more}")

    assert {"litellm_settings", "extauthz.keys_file", "extauthz.teams"} == set(after.changed_since(before))
    assert () == after.changed_since(after)
