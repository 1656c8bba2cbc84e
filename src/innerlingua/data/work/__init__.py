"""Long work that can be killed at any point and continued: a journal, a pace, a client, and the engine that joins them.

The unit is a task with a key. A task that ended well is in the journal and is never asked again; one that failed is
recorded as failed, never as done, and is tried anew by the next run.
"""

from __future__ import annotations

from innerlingua.data.work.client import ChatClient, Endpoint, Reply
from innerlingua.data.work.engine import Outcome, Refused, Retryable, Task, run_tasks
from innerlingua.data.work.http import CONNECT, JsonClient, check_url
from innerlingua.data.work.journal import Journal
from innerlingua.data.work.keys import ApiKey, read_key
from innerlingua.data.work.pace import Pace

__all__ = [
    "CONNECT",
    "ApiKey",
    "ChatClient",
    "Endpoint",
    "Journal",
    "JsonClient",
    "Outcome",
    "Pace",
    "Refused",
    "Reply",
    "Retryable",
    "Task",
    "check_url",
    "read_key",
    "run_tasks",
]
