"""The table of payloads that are kept outside Temporal's histories."""

import builtins
from datetime import datetime

from sqlalchemy import Column, Index, LargeBinary
from sqlmodel import Field, SQLModel

from app.db.columns import timestamp


class PayloadBlob(SQLModel, table=True):
    """A serialized payload that is kept outside Temporal's histories. It was last referred to at `last_used_at`."""

    __tablename__ = "payload_blob"
    __table_args__ = (Index("ix_payload_blob_last_used_at", "last_used_at"),)

    sha256: str = Field(primary_key=True, max_length=64)
    bytes: builtins.bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    size: int
    created_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))
    last_used_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))
