"""Plugins are found without being imported, loaded one at a time, and blamed by name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mmgen.errors import PluginError
from mmgen.plugins import (
    MODELS,
    RECIPES,
    VISUAL_TOKENIZERS,
    PluginInfo,
    find,
    installed,
    load_model_path,
    load_recipe,
    load_visual_tokenizer,
    load_visual_tokenizer_class,
    located_visual_tokenizer,
    untrained_visual_tokenizer,
)

Install = Callable[..., None]

TOKENIZER = """
from mmgen.visual_tokenizer import AbstractVisualTokenizer
class Tokenizer(AbstractVisualTokenizer):
    spec = fingerprint = None
    def encode(self, images, *, length=None, quality=None, captions=None): return []
    def decode(self, codes, *, seed=None, steps=None, captions=None): return []
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution: a module and the metadata that pip would write."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(distribution: str, group: str, entry: str, code: str = "") -> None:
        module = entry.partition("=")[2].partition(":")[0].strip()
        (tmp_path / f"{module}.py").write_text(code)
        metadata = tmp_path / f"{distribution.replace('-', '_')}-1.2.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n"
        )
        (metadata / "entry_points.txt").write_text(f"[{group}]\n{entry}\n")

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("stranger"):
            del sys.modules[name]


def test_installed_tells_what_the_metadata_says(install: Install) -> None:
    install("mmgen-stranger", VISUAL_TOKENIZERS, "odd = stranger_odd:Tokenizer", "1 / 0")
    assert installed(VISUAL_TOKENIZERS)["odd"] == PluginInfo(
        name="odd", distribution="mmgen-stranger", version="1.2", value="stranger_odd:Tokenizer"
    )
    assert "stranger_odd" not in sys.modules


def test_names_are_sorted(install: Install) -> None:
    install("mmgen-strange-b", VISUAL_TOKENIZERS, "zebra = stranger_b:T")
    install("mmgen-strange-a", VISUAL_TOKENIZERS, "aardvark = stranger_a:T")
    names = list(installed(VISUAL_TOKENIZERS))
    assert names == sorted(names)
    assert {"aardvark", "palette", "zebra"} <= set(names)


def test_a_group_without_plugins_is_empty() -> None:
    assert installed("mmgen.no_such_group") == {}


def test_own_plugin_is_loaded_by_name() -> None:
    assert load_visual_tokenizer_class("palette").__name__ == "PaletteTokenizer"


def test_only_the_plugin_asked_for_is_imported(install: Install) -> None:
    install("mmgen-stranger", VISUAL_TOKENIZERS, "odd = stranger_odd:Tokenizer", TOKENIZER)
    install("mmgen-stranger-2", VISUAL_TOKENIZERS, "even = stranger_even:Tokenizer", TOKENIZER)
    assert load_visual_tokenizer_class("odd").__module__ == "stranger_odd"
    assert "stranger_even" not in sys.modules


def test_unknown_name_lists_what_exists_and_the_nearest() -> None:
    with pytest.raises(PluginError, match=r"no visual tokenizer named 'palete'; installed: .*pal"):
        load_visual_tokenizer_class("palete")
    with pytest.raises(PluginError, match="did you mean 'palette'"):
        find(VISUAL_TOKENIZERS, "palete")
    with pytest.raises(PluginError) as caught:
        find(VISUAL_TOKENIZERS, "xyzzy")
    assert "did you mean" not in str(caught.value)


def test_unknown_name_in_an_empty_group() -> None:
    with pytest.raises(PluginError, match=r"no plugin of mmgen\.nothing named 'x': none is"):
        find("mmgen.nothing", "x")


def test_duplicate_names_name_both_distributions(install: Install) -> None:
    install("mmgen-stranger", VISUAL_TOKENIZERS, "odd = stranger_one:T", TOKENIZER)
    install("mmgen-rival", VISUAL_TOKENIZERS, "odd = stranger_two:T", TOKENIZER)
    for act in (load_visual_tokenizer_class, lambda name: installed(VISUAL_TOKENIZERS)):
        with pytest.raises(PluginError, match=r"mmgen-stranger 1\.2 and .*mmgen-rival 1\.2"):
            act("odd")
    assert load_visual_tokenizer_class("palette")


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("class Other: pass", "AttributeError"),
        ("def f(:", "SyntaxError"),
        ("raise RuntimeError('needs a licence')", "RuntimeError: needs a licence"),
        ("raise SystemExit('goodbye')", "SystemExit: goodbye"),
    ],
)
def test_failing_import_names_the_distribution(install: Install, code: str, found: str) -> None:
    install("mmgen-stranger", VISUAL_TOKENIZERS, "odd = stranger_odd:Tokenizer", code)
    with pytest.raises(PluginError) as caught:
        load_visual_tokenizer_class("odd")
    assert found in str(caught.value)
    assert "of mmgen-stranger 1.2 cannot be imported" in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("Tokenizer = 7", "gives 7, expected a class"),
        ("class Tokenizer: pass", "expected a class that implements"),
        (TOKENIZER.replace("def decode", "def decoder"), "which lacks decode"),
    ],
)
def test_value_must_be_a_whole_tokenizer(install: Install, code: str, found: str) -> None:
    install("mmgen-stranger", VISUAL_TOKENIZERS, "odd = stranger_odd:Tokenizer", code)
    with pytest.raises(PluginError, match=found):
        load_visual_tokenizer_class("odd")


@pytest.mark.parametrize("code", ["path = Path({!r})", "def path(): return Path({!r})"])
def test_model_path_is_a_value_or_a_function(install: Install, tmp_path: Path, code: str) -> None:
    code = "from pathlib import Path\n" + code.format(str(tmp_path))
    install("mmgen-stranger", MODELS, "tiny = stranger_model:path", code)
    assert load_model_path("tiny") == tmp_path


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("path = '/nowhere'", "expected the pathlib.Path"),
        ("from pathlib import Path; path = Path('/nowhere')", "reinstall mmgen-stranger"),
    ],
)
def test_model_path_must_be_a_directory(install: Install, code: str, found: str) -> None:
    install("mmgen-stranger", MODELS, "tiny = stranger_model:path", code)
    with pytest.raises(PluginError, match=found):
        load_model_path("tiny")


def test_recipe_is_a_function(install: Install) -> None:
    install("mmgen-stranger", RECIPES, "run = stranger_recipe:run", "def run(): return 41 + 1")
    install("mmgen-stranger-2", RECIPES, "walk = stranger_walk:walk", "walk = 5")
    assert load_recipe("run")() == 42
    with pytest.raises(PluginError, match="gives 5, expected a function"):
        load_recipe("walk")


def test_finding_imports_neither_plugins_nor_torch() -> None:
    code = (
        "import sys; from mmgen.plugins import *; installed('mmgen.visual_tokenizers');"
        "print([m for m in sys.modules if m.startswith(('mmgen_', 'torch'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


UNTRAINED = """
    is_trainable = True
    @classmethod
    def untrained(cls, settings, *, seed): raise SystemExit("no seeds today")
"""


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (TOKENIZER, "has a NoneType for its spec, expected a VisualTokenizerSpec"),
        (
            TOKENIZER.replace("spec = fingerprint = None", "fingerprint = None")
            + "    @property\n    def spec(self): raise OSError('lost')\n",
            "has no spec: OSError: lost",
        ),
        (
            TOKENIZER + "    def __init__(self): raise SystemExit(3)\n",
            "cannot be loaded: SystemExit: 3; check the weights",
        ),
    ],
)
def test_a_tokenizer_that_is_none_names_its_distribution(
    install: Install, code: str, found: str
) -> None:
    install("mmgen-stranger", VISUAL_TOKENIZERS, "odd = stranger_odd:Tokenizer", code)
    with pytest.raises(PluginError, match=found) as caught:
        load_visual_tokenizer("odd")
    assert "of mmgen-stranger 1.2 " in str(caught.value)


def test_what_cannot_be_made_for_training_names_its_distribution(install: Install) -> None:
    code = TOKENIZER + UNTRAINED
    install("mmgen-stranger", VISUAL_TOKENIZERS, "odd = stranger_odd:Tokenizer", code)
    with pytest.raises(PluginError, match=r"mmgen-stranger 1\.2 makes no untrained .* no seeds"):
        untrained_visual_tokenizer("odd", {}, seed=0)
    with pytest.raises(PluginError, match="palette has nothing to train"):
        untrained_visual_tokenizer("palette", {}, seed=0)


def test_a_folder_says_its_plugin_or_is_refused(tmp_path: Path) -> None:
    assert located_visual_tokenizer("palette") == ("palette", None)
    assert located_visual_tokenizer("palette", tmp_path) == ("palette", tmp_path)
    folder = tmp_path / "palette"
    folder.mkdir()
    for text, found in (
        ("{}", "does not say which plugin"),
        ("[]", "no folder of a tokenizer"),
        ("{", "no folder of a tokenizer"),
    ):
        (folder / "tokenizer_config.json").write_text(text)
        with pytest.raises(PluginError, match=found):
            located_visual_tokenizer(str(folder))
    (folder / "tokenizer_config.json").write_text('{"plugin": "odd"}')
    assert located_visual_tokenizer(str(folder)) == ("odd", folder)
    with pytest.raises(PluginError, match="leave out --weights"):
        located_visual_tokenizer(str(folder), tmp_path)
    with pytest.raises(PluginError, match="no folder of a tokenizer"):
        located_visual_tokenizer(str(tmp_path / "nowhere"))
