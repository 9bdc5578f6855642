"""`mmgen tokenizer`: results on stdout, failures as `MmgenError`, and nothing half written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from mmgen.cli.tokenizer import tokenizer
from mmgen.errors import (
    DataError,
    MmgenError,
    OutputError,
    PictureError,
    PluginError,
    SettingsError,
)
from mmgen.pictures import read_metadata, to_picture
from mmgen.testing import draw_picture


def run(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(tokenizer, [str(item) for item in arguments], input=stdin)


def output_of(*arguments: object, stdin: str | None = None) -> str:
    result = run(*arguments, stdin=stdin)
    assert result.exception is None, (result.exception, result.output)
    return result.stdout


def error_of(*arguments: object, stdin: str | None = None) -> MmgenError:
    result = run(*arguments, stdin=stdin)
    assert isinstance(result.exception, MmgenError), (result.exception, result.output)
    return result.exception


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "drawn.png"
    to_picture(draw_picture((60, 62), seed=1)).save(path)
    return path


def test_list_names_every_tokenizer() -> None:
    (line,) = [line for line in output_of("list").splitlines() if line.startswith("palette")]
    assert "mmgen-palette" in line and "mmgen_palette:PaletteTokenizer" in line
    rows = json.loads(output_of("list", "--json"))
    assert rows == sorted(rows, key=lambda row: str(row["name"]))
    assert {"name", "distribution", "version", "value"} == set(rows[0])


def test_list_imports_no_plugin_and_no_torch() -> None:
    code = (
        "import sys; from mmgen.cli.tokenizer import tokenizer\n"
        "assert 'numpy' not in sys.modules\n"
        "tokenizer(['list'], standalone_mode=False)\n"
        "print([m for m in sys.modules if m.startswith(('mmgen_', 'torch'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "palette" in done.stdout


def install(place: Path, distribution: str, entry: str, code: str) -> None:
    """Write a module and the metadata that pip would write."""
    module = entry.partition("=")[2].partition(":")[0].strip()
    (place / f"{module}.py").write_text(code)
    metadata = place / f"{distribution.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
    )
    (metadata / "entry_points.txt").write_text(f"[mmgen.visual_tokenizers]\n{entry}\n")


def test_broken_plugins_are_listed_and_break_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Path
) -> None:
    install(tmp_path, "mmgen-raises", "raises = odd_raises:T", "raise OSError('no driver')")
    install(tmp_path, "mmgen-one", "twice = odd_one:T", "")
    install(tmp_path, "mmgen-other", "twice = odd_other:T", "")
    loads = "from mmgen_palette import PaletteTokenizer\nclass T(PaletteTokenizer):\n"
    loads += "    @classmethod\n    def load(cls, path=None, **options): return [][1]\n"
    install(tmp_path, "mmgen-unloadable", "unloadable = odd_unloadable:T", loads)
    monkeypatch.syspath_prepend(str(tmp_path))
    result = run("list")
    assert result.exception is None
    names = [line.split()[0] for line in result.stdout.splitlines()]
    assert names.count("twice") == 2
    assert {"palette", "raises", "unloadable"} <= set(names)
    assert "'twice' cannot be used: mmgen-one and mmgen-other both have it" in result.stderr
    listed = json.loads(run("list", "--json").stdout)
    assert [row["name"] for row in listed] == names
    assert "64x64" in output_of("info", "palette")
    for name, message in {
        "raises": "of mmgen-raises 1.0 cannot be imported: OSError: no driver",
        "twice": "uninstall all but one",
        "unloadable": "of mmgen-unloadable 1.0 cannot be loaded: IndexError",
    }.items():
        for words in (("info", name), ("encode", name, picture)):
            error = error_of(*words)
            assert isinstance(error, PluginError)
            assert message in str(error)
    del sys.modules["odd_unloadable"]


def test_new_writes_a_package_that_is_checked_by_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))  # put back what checking a folder adds
    result = run("new", "mosaic", "--kind", "residual", "-o", tmp_path)
    assert result.exception is None
    folder = tmp_path / "mmgen-mosaic"
    assert result.stdout == f"{folder}\n"
    assert "pip install -e" in result.stderr
    text = output_of("check", folder, "--skip", "speed")
    assert text.startswith("checking mosaic of mmgen-mosaic 0.1.0 (mmgen_mosaic:MosaicTokenizer)")
    assert "0 failed" in text
    report = json.loads(run("check", folder, "--only", "spec", "--json").stdout)
    assert report["name"] == "mosaic"
    assert str(folder) in report["origin"]
    for name in [name for name in sys.modules if name.startswith("mmgen_mosaic")]:
        del sys.modules[name]


def test_new_refuses_what_is_there_already(tmp_path: Path) -> None:
    error = error_of("new", "palette", "-o", tmp_path)
    assert "mmgen-palette" in str(error) and "choose another name" in str(error)
    assert list(tmp_path.iterdir()) == []


def test_check_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    code = "from mmgen_palette import PaletteTokenizer\nclass Single(PaletteTokenizer): pass\n"
    (tmp_path / "odd_single.py").write_text(code)
    assert "checking Single in" in output_of("check", tmp_path / "odd_single.py", "--only", "spec")
    (tmp_path / "odd_pair.py").write_text(code + "class Second(PaletteTokenizer): pass\n")
    assert "2 tokenizers (Single, Second)" in str(error_of("check", tmp_path / "odd_pair.py"))
    (tmp_path / "odd_raise.py").write_text("1 / 0")
    assert "ZeroDivisionError" in str(error_of("check", tmp_path / "odd_raise.py"))
    assert "there is no file" in str(error_of("check", tmp_path / "gone.py"))
    for name in ("odd_single", "odd_pair"):
        del sys.modules[name]


@pytest.mark.parametrize(
    ("project", "message"),
    [
        (None, "is no folder of a tokenizer's package"),
        ("nonsense", "names no tokenizer"),
        ("[project]\nname = 'x'\n", "it needs [project.entry-points."),
        (
            '[project]\n[project.entry-points."mmgen.visual_tokenizers"]\na = "b:C"\nd = "e:F"\n',
            "names 2 tokenizers (a, d)",
        ),
        (
            '[project]\n[project.entry-points."mmgen.visual_tokenizers"]\na = "odd_gone:C"\n',
            "cannot be imported: ModuleNotFoundError",
        ),
        (
            '[project]\n[project.entry-points."mmgen.visual_tokenizers"]\na = "math:pi"\n',
            "expected a class that implements",
        ),
    ],
)
def test_check_of_a_folder_without_a_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: str | None, message: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    if project is not None:
        (tmp_path / "pyproject.toml").write_text(project)
    error = error_of("check", tmp_path)
    assert isinstance(error, PluginError)
    assert message in str(error)


def test_info_describes_the_tokenizer() -> None:
    facts = json.loads(output_of("info", "palette", "--json"))
    assert facts["codebook_sizes"] == [256]
    assert facts["sizes"][0] == [64, 64]
    assert facts["tokens_per_picture"] == 64
    assert facts["bits_per_picture"] == 512.0
    assert len(facts["fingerprint"]) == 64
    text = output_of("info", "palette")
    assert facts["fingerprint"] in text
    assert "64x64 32x32" in text


def test_check_passes_the_palette() -> None:
    text = output_of("check", "palette")
    assert "ok    codes:" in text
    assert "0 failed" in text
    assert "images/s" in text


def test_check_with_pictures_as_json(picture: Path) -> None:
    (picture.parent / "broken.png").write_bytes(b"not a picture")
    result = run("check", "palette", "--json", "--images", picture.parent, "--only", "round trip")
    report = json.loads(result.stdout)
    assert report["is_passed"] is True
    assert [item["name"] for item in report["checks"]] == ["round trip"]
    assert "dB on average" in result.stderr
    assert "broken.png" in result.stderr


def test_check_of_a_directory_without_pictures(tmp_path: Path) -> None:
    error = error_of("check", "palette", "--images", tmp_path)
    assert isinstance(error, PictureError)
    assert "no pictures in" in str(error)


def test_check_fails_with_the_names_of_the_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mmgen_cracked.py").write_text(
        "from mmgen_palette import PaletteTokenizer\n"
        "class Cracked(PaletteTokenizer):\n"
        "    fingerprint = 'short'\n"
        "    def code_vectors(self, codebook): return super().code_vectors(codebook)[:3]\n"
    )
    metadata = tmp_path / "mmgen_cracked-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mmgen-cracked\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[mmgen.visual_tokenizers]\ncracked = mmgen_cracked:Cracked\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    result = run(
        "check", "cracked", "--skip", "speed", "--skip", "fresh process", "--skip", "imports"
    )
    assert isinstance(result.exception, PluginError)
    assert "fails 2 of 24 checks (code vectors, fingerprint)" in str(result.exception)
    assert "FAIL  fingerprint: fingerprint is 'short'" in result.stdout
    del sys.modules["mmgen_cracked"]


@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_encode_then_decode_files(picture: Path, suffix: str) -> None:
    codes, drawn = picture.with_suffix(f".{suffix}"), picture.parent / "new" / "drawn.png"
    assert output_of("encode", "palette", picture, "-o", codes) == f"{codes}\n"
    assert output_of("decode", "palette", codes, "-o", drawn) == f"{drawn}\n"
    with Image.open(drawn) as image:
        assert image.size == (64, 64)
    facts = json.loads(output_of("info", "palette", "--json"))
    assert read_metadata(drawn)["mmgen.tokenizer_fingerprint"] == facts["fingerprint"]


def test_decoded_picture_has_the_same_codes(picture: Path, tmp_path: Path) -> None:
    first = json.loads(output_of("encode", "palette", picture, "--size", "32x32"))
    again = tmp_path / "again.png"
    output_of("decode", "palette", "-", "-o", again, stdin=json.dumps(first))
    second = json.loads(output_of("encode", "palette", again))
    assert second["pictures"][0]["codes"] == first["pictures"][0]["codes"]
    assert first["pictures"][0]["shape"] == [1, 4, 4]
    assert np.array(first["pictures"][0]["codes"]).shape == (16, 1)


def test_several_pictures_keep_their_order_and_shape(picture: Path, tmp_path: Path) -> None:
    wide = tmp_path / "wide.png"
    to_picture(draw_picture((40, 60), seed=2)).save(wide)
    codes, directory = tmp_path / "codes.npz", tmp_path / "drawn"
    output_of("encode", "palette", picture, wide, "-o", codes)
    paths = output_of("decode", "palette", codes, "-o", directory).splitlines()
    assert [Path(path).name for path in paths] == ["0000_drawn.png", "0001_wide.png"]
    sizes = []
    for path in paths:
        with Image.open(path) as image:
            sizes.append(image.size)
    assert sizes == [(64, 64), (96, 64)]


def test_default_output_is_named_after_the_file(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output_of("encode", "palette", picture, "-o", "one.json")
    output_of("encode", "palette", picture, picture, "-o", "two.json")
    assert output_of("decode", "palette", "one.json") == "one.png\n"
    assert output_of("decode", "palette", "two.json").splitlines()[1] == "two/0001_drawn.png"


def test_good_pictures_complete_beside_bad_ones(picture: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    result = run("encode", "palette", tmp_path / "empty.png", picture, tmp_path / "gone.png")
    assert [item["input"] for item in json.loads(result.stdout)["pictures"]] == [str(picture)]
    assert "empty.png" in result.stderr and "gone.png" in result.stderr
    assert isinstance(result.exception, PictureError)
    assert "2 of 3 pictures" in str(result.exception)


def test_no_good_picture_writes_nothing(tmp_path: Path) -> None:
    error = error_of("encode", "palette", tmp_path / "gone.png", "-o", tmp_path / "codes.json")
    assert isinstance(error, PictureError)
    assert not (tmp_path / "codes.json").exists()


def test_settings_that_do_not_fit(picture: Path) -> None:
    error = error_of("encode", "palette", picture, "--size", "65x64")
    assert isinstance(error, SettingsError)
    assert "allowed are 64x64, 32x32" in str(error)
    assert "refuses" in str(error_of("encode", "palette", picture, "--length", "5"))
    assert "installed: " in str(error_of("info", "pallette"))
    assert "load it without a path" in str(error_of("info", "palette", "--weights", picture.parent))


def test_outputs_that_cannot_be_written(picture: Path, tmp_path: Path) -> None:
    error = error_of("encode", "palette", picture, "-o", tmp_path / "codes.txt")
    assert isinstance(error, SettingsError)
    (tmp_path / "taken.json").mkdir()
    error = error_of("encode", "palette", picture, "-o", tmp_path / "taken.json")
    assert isinstance(error, OutputError)
    error = error_of("encode", "palette", picture, "-o", picture / "codes.json")
    assert isinstance(error, OutputError)
    two = tmp_path / "two.json"
    output_of("encode", "palette", picture, picture, "-o", two)
    assert "give a directory" in str(error_of("decode", "palette", two, "-o", tmp_path / "a.png"))
    text = two.read_text()
    assert "give -o" in str(error_of("decode", "palette", "-", stdin=text))


def test_files_that_hold_no_codes(picture: Path, tmp_path: Path) -> None:
    good = json.loads(output_of("encode", "palette", picture))
    item = good["pictures"][0]
    bad = {
        "holds no codes": "nonsense",
        "holds no codes ": "[]",
        "of 'fsq', not of 'palette'": json.dumps(good | {"tokenizer": "fsq"}),
        "a layout (1, 9, 9)": json.dumps(good | {"pictures": [item | {"shape": [1, 9, 9]}]}),
        "integer array": json.dumps(good | {"pictures": [item | {"codes": [[0.5]]}]}),
        "palette refuses": json.dumps(good | {"pictures": [item | {"codes": [[1]]}]}),
    }
    for message, text in bad.items():
        error = error_of("decode", "palette", "-", "-o", tmp_path / "x.png", stdin=text)
        assert isinstance(error, DataError)
        assert message.strip() in str(error)
    error = error_of("decode", "palette", tmp_path / "gone.json", "-o", tmp_path / "x.png")
    assert isinstance(error, DataError)
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    assert "holds no codes" in str(error_of("decode", "palette", tmp_path / "cut.npz"))
    assert not (tmp_path / "x.png").exists()


def test_other_weights_are_refused_with_both_fingerprints(picture: Path, tmp_path: Path) -> None:
    content = json.loads(output_of("encode", "palette", picture))
    text = json.dumps(content | {"fingerprint": "f" * 64})
    error = error_of("decode", "palette", "-", "-o", tmp_path / "x.png", stdin=text)
    assert isinstance(error, PluginError)
    assert "f" * 64 in str(error) and content["fingerprint"] in str(error)
