"""Saving while a conversation goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat_objects import exchange
from screens import run_async

from mmgen.errors import MmgenError
from mmgen_chat.conversation import Conversation, Words
from mmgen_chat.errors import StoreError
from mmgen_chat.keeping import Keeper
from mmgen_chat.store import Store


def test_the_newest_state_of_each_conversation_is_saved(tmp_path: Path) -> None:
    first = exchange(Conversation(), "one", Words("1"))
    longer = exchange(first, "two", Words("2"))
    other = exchange(Conversation(), "three", Words("3"))

    async def test() -> None:
        with Store(tmp_path / "chat.db") as store:
            keeper = Keeper(store, complain=lambda error: pytest.fail(str(error)))
            for conversation in (first, other, longer):
                keeper.keep(conversation)
            await keeper.flush()
            assert store.load(longer.id) == longer and store.load(other.id) == other

    run_async(test)


def test_what_is_deleted_is_not_saved_again(tmp_path: Path) -> None:
    conversation = exchange(Conversation(), "one", Words("1"))

    async def test() -> None:
        with Store(tmp_path / "chat.db") as store:
            keeper = Keeper(store, complain=lambda error: pytest.fail(str(error)))
            keeper.keep(conversation)
            await keeper.flush()
            keeper.keep(conversation)
            await keeper.delete(conversation.id)
            await keeper.flush()
            with pytest.raises(StoreError):
                store.load(conversation.id)

    run_async(test)


def test_a_store_that_fails_is_complained_of_once(tmp_path: Path) -> None:
    conversation = exchange(Conversation(), "one", Words("1"))
    said: list[MmgenError] = []

    async def test() -> None:
        store = Store(tmp_path / "chat.db")
        keeper = Keeper(store, complain=said.append)
        store.close()
        for _ in range(2):
            keeper.keep(conversation)
            await keeper.flush()

    run_async(test)
    assert len(said) == 1


def test_nothing_is_kept_without_a_store_or_without_turns(tmp_path: Path) -> None:
    async def test() -> None:
        Keeper(None, complain=lambda error: pytest.fail(str(error))).keep(
            exchange(Conversation(), "one", Words("1"))
        )
        with Store(tmp_path / "chat.db") as store:
            keeper = Keeper(store, complain=lambda error: pytest.fail(str(error)))
            keeper.keep(Conversation())
            await keeper.flush()
            assert store.entries(limit=5) == []

    run_async(test)
