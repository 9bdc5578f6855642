"""What guidance leads away from: prompts whose condition is replaced, id for id, by null.

The condition is what users say. It may be blanked as a whole, or in its words alone, so that the
pictures that a user shows and the words about them can be guided apart. The results are as long as
the prompts, since positions count too.
"""

from __future__ import annotations

from mmgen.grammar import Ids
from mmgen.vocabulary import Vocabulary

__all__ = ["null_condition", "null_words"]


def null_condition(ids: Ids, vocabulary: Vocabulary) -> list[int]:
    """Return ids with all that users say replaced, id for id, by null.

    The last turn may be unfinished, so prompts are taken too. Marks of turns stay.
    """
    said = zip(map(int, ids), _said(ids, vocabulary), strict=True)
    return [vocabulary.null_id if is_said else id_ for id_, is_said in said]


def null_words(ids: Ids, vocabulary: Vocabulary) -> list[int]:
    """Return ids with the words of users replaced, id for id, by null.

    Their pictures stay, with the marks around them.
    """
    said = zip(map(int, ids), _said(ids, vocabulary), strict=True)
    return [
        vocabulary.null_id if is_said and id_ < vocabulary.num_text_ids else id_
        for id_, is_said in said
    ]


def _said(ids: Ids, vocabulary: Vocabulary) -> list[bool]:
    """Return for each id whether it is something that a user says."""
    is_user = False
    result: list[bool] = []
    for id_ in map(int, ids):
        is_user = is_user and id_ != vocabulary.end_id
        result.append(is_user)
        is_user = is_user or id_ == vocabulary.user_id
    return result
