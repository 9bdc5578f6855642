"""Events to JSON, without a server: every shape from the same hand-made course of a turn."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mmgen.document import Document, Text, Turn
from mmgen.generate.engine import SamplingParams
from mmgen.generate.events import (
    ImageStarted,
    TextDelta,
    Timings,
    TurnEnd,
    TurnFinished,
    Usage,
)
from mmgen.generate.requests import ChatRequest
from mmgen.serve.chat_wire import ChatAnswer, ChatChunks
from mmgen.serve.images_wire import ImageEvents, ImagesAnswer
from mmgen.serve.previews import Preview
from mmgen.serve.rendering import PictureFormat
from mmgen.serve.response_fields import ResponsesBody
from mmgen.serve.responses_wire import ResponseAnswer, ResponseEvents
from mmgen.serve.running import Drawing, Told
from mmgen.visual_tokenizer import Grid

HEAD = {"id": "resp_1", "created": 5, "model": "tiny"}
PNG = PictureFormat()
REQUEST = ChatRequest(
    document=Document(turns=(Turn("user", (Text("draw"),)),)),
    seed=7,
    text_sampling=SamplingParams(temperature=0.5),
)
APPLIED = {"seed": 7, "guidance_scale": 2.0}


def drawing(index: int = 0, encoded: str = "QUJD") -> Drawing:
    return Drawing(index=index, encoded=encoded, format=PNG, size="64x32", applied=APPLIED)


def finished(index: int = 0, *, text: str = "", end: TurnEnd = "end") -> TurnFinished:
    return TurnFinished(
        index=index,
        turn=Turn("assistant", (Text("x"),)),
        text=text,
        end=end,
        usage=Usage(prompt_ids=10, prompt_image_ids=4, text_ids=3, image_ids=8, cached_ids=6),
        timings=Timings(0.25, 0.5),
    )


def preview(index: int = 0, number: int = 0) -> Preview:
    return Preview(
        index=index, number=number, num_done=4, num_codes=8, encoded="UFJF", size="64x32"
    )


def course(index: int = 0, end: TurnEnd = "end") -> list[Told]:
    """Words, a picture with a preview, words again."""
    return [
        TextDelta(index, "Here "),
        TextDelta(index, "it is"),
        ImageStarted(index, "palette", Grid(4, 2), 8),
        preview(index),
        drawing(index),
        TextDelta(index, "Bye"),
        finished(index, text="Here it isBye", end=end),
    ]


def test_a_chat_answer_keeps_the_order() -> None:
    answer = ChatAnswer(HEAD, [REQUEST])
    for told in course():
        answer.take(told)
    body = answer.body()
    (choice,) = body["choices"]
    url = "data:image/png;base64,QUJD"
    assert choice["message"]["content"] == "Here it isBye"
    assert choice["message"]["content_parts"] == [
        {"type": "text", "text": "Here it is"},
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "Bye"},
    ]
    assert choice["message"]["images"] == [
        {"type": "image_url", "index": 0, "image_url": {"url": url}}
    ]
    assert choice["mmgen"] == {
        "seed": 7,
        "images": [APPLIED],
        "timings": {"first_id": 0.25, "total": 0.5},
    }
    assert body["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 11,
        "total_tokens": 21,
        "prompt_tokens_details": {"cached_tokens": 6, "text_tokens": 6, "image_tokens": 4},
        "completion_tokens_details": {"text_tokens": 3, "image_tokens": 8},
    }
    json.dumps(body)


@pytest.mark.parametrize(
    ("end", "reason"), [("end", "stop"), ("image", "stop"), ("length", "length")]
)
def test_ends_are_told_as_openai_tells_them(end: TurnEnd, reason: str) -> None:
    answer = ChatAnswer(HEAD, [REQUEST])
    answer.take(finished(text="words", end=end))
    (choice,) = answer.body()["choices"]
    assert choice["finish_reason"] == reason
    assert choice["message"]["content"] == "words"


def test_choices_are_kept_apart_and_prompts_counted_once() -> None:
    answer = ChatAnswer(HEAD, [REQUEST, REQUEST])
    for first, second in zip(course(1), course(0), strict=True):
        answer.take(first)
        answer.take(second)
    body = answer.body()
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (10, 22)


def test_chat_chunks_in_order() -> None:
    chunks = ChatChunks(HEAD, [REQUEST], PNG, has_usage=True)
    found = chunks.opening()
    for told in course():
        found += chunks.take(told)
    found += chunks.closing()
    deltas = [chunk["choices"][0]["delta"] for chunk in found[:-1]]
    assert [next(iter(delta), "end") for delta in deltas] == [
        "role",
        "content",
        "content",
        "partial_images",
        "images",
        "content",
        "end",
    ]
    assert deltas[3]["partial_images"][0]["num_done"] == 4
    assert deltas[4]["images"][0]["index"] == 0
    assert found[-2]["choices"][0]["finish_reason"] == "stop"
    assert found[-2]["choices"][0]["mmgen"]["images"] == [APPLIED]
    assert found[-1]["choices"] == [] and found[-1]["usage"]["total_tokens"] == 21
    assert all(chunk["usage"] is None for chunk in found[:-1])
    assert {chunk["object"] for chunk in found} == {"chat.completion.chunk"}


def test_chunks_without_usage_have_none() -> None:
    chunks = ChatChunks(HEAD, [REQUEST], PNG, has_usage=False)
    assert chunks.closing() == []
    assert "usage" not in chunks.opening()[0]


def test_images_come_in_the_order_of_their_seeds() -> None:
    answer = ImagesAnswer(5)
    for index in (1, 0):
        answer.take(drawing(index, f"QU{index}D"))
        answer.take(finished(index))
    body = answer.body()
    assert [item["b64_json"] for item in body["data"]] == ["QU0D", "QU1D"]
    assert body["usage"]["input_tokens"] == 10
    assert body["usage"]["input_tokens_details"] == {
        "cached_tokens": 6,
        "image_tokens": 4,
        "text_tokens": 6,
    }
    assert body["usage"]["output_tokens"] == 22


def test_image_events_count_their_previews() -> None:
    events = ImageEvents("image_edit", 5, PNG)
    found: list[dict[str, Any]] = []
    for told in (preview(0, 0), preview(1, 0), preview(0, 2), drawing(0), finished(0)):
        found += events.take(told)
    assert [event["type"] for event in found] == ["image_edit.partial_image"] * 3 + [
        "image_edit.completed"
    ]
    assert [event["partial_image_index"] for event in found[:3]] == [0, 0, 1]
    assert found[-1]["usage"]["total_tokens"] == 21
    assert found[-1]["mmgen"] == {"index": 0, **APPLIED}


def asked() -> ResponsesBody:
    tool = {"type": "image_generation"}
    return ResponsesBody.model_validate({"input": "draw", "tools": [tool]})


def test_a_response_opens_and_closes_its_items() -> None:
    events = ResponseEvents(HEAD, asked(), REQUEST, PNG)
    found = events.opening()
    for told in course():
        found += json.loads(json.dumps(events.take(told)))
    kinds = [event["type"].removeprefix("response.") for event in found]
    words = ["content_part.added", "output_text.delta"]
    ends = ["output_text.done", "content_part.done", "output_item.done"]
    assert kinds == [
        *("created", "in_progress", "output_item.added", *words, "output_text.delta", *ends),
        *("output_item.added", "image_generation_call.in_progress"),
        *("image_generation_call.generating", "image_generation_call.partial_image"),
        *("image_generation_call.completed", "output_item.done"),
        *("output_item.added", *words, *ends, "completed"),
    ]
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    places = [event["output_index"] for event in found if "output_index" in event]
    assert places == sorted(places) and set(places) == {0, 1, 2}
    output = found[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["message", "image_generation_call", "message"]
    assert [item["content"][0]["text"] for item in (output[0], output[2])] == ["Here it is", "Bye"]
    assert len({item["id"] for item in output}) == 3
    done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    assert done == output
    added = [event["item"] for event in found if event["type"] == "response.output_item.added"]
    assert [item["id"] for item in added] == [item["id"] for item in output]
    assert {item["status"] for item in added} == {"in_progress"}


def test_a_whole_response_is_the_last_event() -> None:
    streamed = ResponseEvents(HEAD, asked(), REQUEST, PNG)
    whole = ResponseAnswer(ResponseEvents(HEAD, asked(), REQUEST, PNG))
    last: list[dict[str, Any]] = []
    for told in course(end="length"):
        last = streamed.take(told) or last
        whole.take(told)
    assert whole.body() == last[-1]["response"]
    assert whole.body()["status"] == "incomplete"
    assert whole.body()["incomplete_details"] == {"reason": "max_output_tokens"}
    assert whole.body()["usage"]["output_tokens_details"]["image_tokens"] == 8
