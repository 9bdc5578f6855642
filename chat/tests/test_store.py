from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from chat_objects import drawn, exchange, png

from mmgen_chat.conversation import Applied, Conversation, Picture, Turn, Usage, Words
from mmgen_chat.errors import StoreError
from mmgen_chat.store import BROKEN_OFF, Store
from mmgen_chat.store_schema import MIGRATIONS, migrate


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "conversations.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store(path) as store:
        yield store


def full_conversation() -> Conversation:
    attached = Picture(png=png(colour="blue"), size=(4, 6), source="sea.png", alt="the sea")
    question = Turn(role="user", segments=(Words("what is"), attached, Words("this?")))
    conversation = Conversation(title="Sea").with_turn(question)
    answer = Turn(
        role="assistant",
        parent_id=question.id,
        segments=(Words("the sea "), drawn(), Words("!")),
        usage=Usage(prompt_ids=80, text_ids=5, image_ids=16),
        applied=Applied(model="mini", seed=3, guidance_scale=3.0),
        seconds=2.5,
    )
    conversation = conversation.with_turn(answer)
    other = replace(answer, id="other", segments=(Words("no idea"),), state="stopped")
    return conversation.with_turn(other)


def test_a_conversation_comes_back_as_it_was(store: Store, path: Path) -> None:
    conversation = full_conversation()
    store.save(conversation)
    assert store.load(conversation.id) == conversation
    with Store(path) as another:
        loaded = another.load(conversation.id)
    assert loaded == conversation
    assert list(loaded.turns) == list(conversation.turns)
    assert loaded.leaf_id == "other"
    assert another.notice is None


def test_a_growing_answer_is_saved_in_place(store: Store) -> None:
    conversation = exchange(Conversation(), "draw", drawn(num_done=3))
    picture = conversation.pictures[0]
    store.save(conversation)
    whole = replace(drawn(), id=picture.id)
    conversation = conversation.with_picture(whole)
    store.save(conversation)
    [loaded] = store.load(conversation.id).pictures
    assert loaded == whole
    assert store.entries()[0].num_pictures == 1


def test_only_what_changed_is_written(store: Store, path: Path) -> None:
    conversation = exchange(Conversation(), "draw", drawn())
    store.save(conversation)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE pictures SET alt = 'as another program left it'")
    connection.close()
    conversation = exchange(conversation, "thanks", Words("You are welcome."))
    store.save(conversation)
    with Store(path) as another:
        loaded = another.load(conversation.id)
    assert loaded.pictures[0].alt == "as another program left it"
    assert len(loaded.turns) == 4


def test_list_search_rename_delete(store: Store) -> None:
    sea = full_conversation()
    fox = exchange(Conversation(title="Füchse"), "draw a FOX", drawn(prompt="a sly fox"))
    store.save(sea)
    store.save(fox)
    assert [entry.title for entry in store.entries()] == ["Füchse", "Sea"]
    assert [entry.title for entry in store.entries("fÜCHSE")] == ["Füchse"]
    assert [entry.title for entry in store.entries("fox sly")] == ["Füchse"]
    assert [entry.title for entry in store.entries("sea.png")] == ["Sea"]
    assert [entry.title for entry in store.entries("% _")] == []
    store.rename(sea.id, "Ocean")
    assert [entry.title for entry in store.entries()] == ["Ocean", "Füchse"]
    assert [kept.title for kept in store.pictures()] == ["Füchse", "Ocean"]
    store.delete(sea.id)
    assert [entry.title for entry in store.entries()] == ["Füchse"]
    assert len(store.pictures()) == 1
    with pytest.raises(StoreError, match="no conversation"):
        store.load(sea.id)
    store.save(sea)
    assert store.load(sea.id) == sea


def test_a_killed_program_loses_nothing_it_saved(path: Path) -> None:
    program = textwrap.dedent(
        """
        import sys
        from dataclasses import replace
        from pathlib import Path
        from chat_objects import drawn, exchange
        from mmgen_chat.conversation import Conversation, Words
        from mmgen_chat.store import Store

        store = Store(Path(sys.argv[1]))
        talk = exchange(Conversation(), "hello", Words("Hello! What shall I draw?"))
        store.save(talk)
        talk = exchange(talk, "draw an apple", drawn(num_done=0))
        picture = talk.pictures[0]
        turn = replace(talk.turns[talk.leaf_id], state="running")
        talk = talk.with_turn(turn)
        for num_done in range(1, 16):
            talk = talk.with_picture(replace(drawn(num_done=num_done), id=picture.id, png=None))
            store.save(talk)
            print(num_done, flush=True)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 9:
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    with Store(path) as store:
        assert store.notice is None
        [entry] = store.entries()
        loaded = store.load(entry.id)
    hello, _, _, broken = loaded.path()
    assert hello.text == "hello"
    assert (broken.state, broken.failure) == ("failed", BROKEN_OFF)
    codes = broken.pictures[0].codes
    assert codes is not None and len(codes.array) >= 9


def test_two_programs_use_one_file(store: Store, path: Path) -> None:
    with Store(path) as another:
        mine = exchange(Conversation(title="mine"), "hi", Words("Hello!"))
        yours = exchange(Conversation(title="yours"), "hi", Words("Hello!"))
        store.save(mine)
        another.save(yours)
        assert {entry.title for entry in store.entries()} == {"mine", "yours"}
        assert another.load(mine.id) == mine


def test_a_locked_file_is_named(path: Path) -> None:
    with Store(path, seconds_to_wait=0.05) as store:
        conversation = exchange(Conversation(), "hi", Words("Hello!"))
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"locked by another program.*--database"):
            store.save(conversation)
        blocker.execute("ROLLBACK")
        blocker.close()
        store.save(conversation)
        assert store.load(conversation.id) == conversation


@pytest.mark.parametrize("damage", ["noise", "cut", "overwritten"])
def test_a_damaged_file_is_kept_aside(path: Path, damage: str) -> None:
    with Store(path) as store:
        for _ in range(20):
            store.save(full_conversation())
    data = bytearray(path.read_bytes())
    if damage == "noise":
        data[:] = b"this is no database at all " * 200
    elif damage == "cut":
        del data[len(data) // 2 :]
    else:
        data[4096:] = b"\xab" * (len(data) - 4096)
    path.write_bytes(data)
    with Store(path) as store:
        assert store.notice is not None and "kept as conversations.db.damaged-" in store.notice
        assert store.entries() == []
        conversation = full_conversation()
        store.save(conversation)
        assert store.load(conversation.id) == conversation
    [aside] = path.parent.glob("conversations.db.damaged-????????-??????")
    assert aside.read_bytes() == bytes(data)
    with Store(path) as store:
        assert store.notice is None


def test_a_file_of_a_later_version_is_left_alone(path: Path) -> None:
    Store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="version 99"):
        Store(path)
    assert list(path.parent.glob("*damaged*")) == []


def test_migrations_keep_what_is_there_and_happen_whole(path: Path) -> None:
    conversation = full_conversation()
    with Store(path) as store:
        store.save(conversation)
    connection = sqlite3.connect(path, isolation_level=None)
    broken = (*MIGRATIONS, "ALTER TABLE turns ADD COLUMN mark TEXT; ALTER TABLE nothing ADD x")
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, broken)
    assert "mark" not in [row[1] for row in connection.execute("PRAGMA table_info(turns)")]
    migrate(connection, (*MIGRATIONS, "ALTER TABLE turns ADD COLUMN mark TEXT"))
    assert "mark" in [row[1] for row in connection.execute("PRAGMA table_info(turns)")]
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    connection.close()
    with Store(path) as store:
        assert store.load(conversation.id) == conversation


def test_a_row_that_nobody_wrote_is_named(path: Path) -> None:
    with Store(path) as store:
        good, bad = full_conversation(), exchange(Conversation(), "hi", drawn())
        store.save(good)
        store.save(bad)
    with sqlite3.connect(path) as connection:
        [picture] = bad.pictures
        connection.execute("UPDATE pictures SET drawing = '[1' WHERE id = ?", (picture.id,))
    connection.close()
    with Store(path) as store:
        with pytest.raises(StoreError, match="the others can be opened"):
            store.load(bad.id)
        assert store.load(good.id) == good


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--database"):
        Store(tmp_path / "file" / "conversations.db")


def test_text_that_no_encoding_holds(store: Store) -> None:
    conversation = exchange(Conversation(), "half \ud83d", Words("\x00 and nul"))
    store.save(conversation)
    assert [turn.text for turn in store.load(conversation.id).path()] == ["half ?", "\x00 and nul"]
