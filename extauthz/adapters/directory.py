"""`extauthz.diagnostics.v1.Directory`: keys and payers in the store, as operators create, change and revoke them."""

from __future__ import annotations

from collections.abc import Callable

from extauthz._proto.extauthz.diagnostics.v1 import directory_pb2 as messages
from extauthz._proto.extauthz.diagnostics.v1 import directory_pb2_grpc
from extauthz.adapters import directory_messages as written
from extauthz.adapters.answering import Context, answering
from extauthz.directories.store.listing import PayerQuery, page
from extauthz.directories.store.records import Table
from extauthz.directories.store.registry import Done, Registry
from extauthz.errors import ImpossibleError
from extauthz.telemetry.events import Telemetry


class DirectoryService(directory_pb2_grpc.DirectoryServicer):
    """Answers operators; without a registry it tells them what to do to have one."""

    def __init__(
        self, registry: Registry | None, telemetry: Telemetry, *, new_id: Callable[[], str], unix_s: Callable[[], float]
    ) -> None:
        self._opened = registry
        self._telemetry = telemetry
        self._new_id = new_id
        self._unix_s = unix_s

    @answering()
    async def CreateKey(  # noqa: N802 - gRPC's names, here and below
        self, request: messages.CreateKeyRequest, context: Context
    ) -> messages.IssueKeyResponse:
        """Make a key."""
        author = written.author(request, context.peer(), self._new_id)
        return self._issued(await self._registry.create(written.document(request.fields), author))

    @answering()
    async def RotateKey(  # noqa: N802
        self, request: messages.RotateKeyRequest, context: Context
    ) -> messages.IssueKeyResponse:
        """Make a key in the place of another."""
        author = written.author(request, context.peer(), self._new_id)
        return self._issued(await self._registry.rotate(request.key, request.grace_seconds, author))

    @answering()
    async def UpdateKey(  # noqa: N802
        self, request: messages.UpdateKeyRequest, context: Context
    ) -> messages.ChangePayerResponse:
        """Put fields in the place of a key's own."""
        author = written.author(request, context.peer(), self._new_id)
        return self._changed(await self._registry.update(request.key, written.document(request.fields), author))

    @answering()
    async def BlockKey(  # noqa: N802
        self, request: messages.BlockKeyRequest, context: Context
    ) -> messages.ChangePayerResponse:
        """Refuse a key from now on."""
        author = written.author(request, context.peer(), self._new_id)
        return self._changed(await self._registry.block(request.key, author, blocked=True))

    @answering()
    async def UnblockKey(  # noqa: N802
        self, request: messages.UnblockKeyRequest, context: Context
    ) -> messages.ChangePayerResponse:
        """Let a blocked key in again."""
        author = written.author(request, context.peer(), self._new_id)
        return self._changed(await self._registry.block(request.key, author, blocked=False))

    @answering()
    async def RevokeKey(  # noqa: N802
        self, request: messages.RevokeKeyRequest, context: Context
    ) -> messages.ChangePayerResponse:
        """Forget a key."""
        author = written.author(request, context.peer(), self._new_id)
        return self._changed(await self._registry.revoke(request.key, author))

    @answering()
    async def GetKey(  # noqa: N802
        self, request: messages.GetKeyRequest, context: Context
    ) -> messages.GetKeyResponse:
        """Show a key."""
        return messages.GetKeyResponse(payer=written.payer(await self._registry.find(request.key), self._now_ms))

    @answering()
    async def ListKeys(  # noqa: N802
        self, request: messages.ListKeysRequest, context: Context
    ) -> messages.ListPayersResponse:
        """List keys, in pages."""
        return await self._page(written.keys_query(request))

    @answering()
    async def PutPayer(  # noqa: N802
        self, request: messages.PutPayerRequest, context: Context
    ) -> messages.ChangePayerResponse:
        """Write a payer."""
        author = written.author(request, context.peer(), self._new_id)
        return self._changed(
            await self._registry.put(written.scope(request.scope), written.document(request.fields), author)
        )

    @answering()
    async def GetPayer(  # noqa: N802
        self, request: messages.GetPayerRequest, context: Context
    ) -> messages.GetPayerResponse:
        """Show a payer."""
        return messages.GetPayerResponse(
            payer=written.payer(await self._registry.of(written.scope(request.scope)), self._now_ms)
        )

    @answering()
    async def DeletePayer(  # noqa: N802
        self, request: messages.DeletePayerRequest, context: Context
    ) -> messages.ChangePayerResponse:
        """Forget a payer."""
        author = written.author(request, context.peer(), self._new_id)
        return self._changed(await self._registry.delete(written.scope(request.scope), author))

    @answering()
    async def ListPayers(  # noqa: N802
        self, request: messages.ListPayersRequest, context: Context
    ) -> messages.ListPayersResponse:
        """List payers, in pages."""
        return await self._page(written.payers_query(request))

    @answering()
    async def ImportPayers(  # noqa: N802
        self, request: messages.ImportPayersRequest, context: Context
    ) -> messages.ImportPayersResponse:
        """Write many payers, all or none."""
        author = written.author(request, context.peer(), self._new_id)
        return messages.ImportPayersResponse(
            changed=await self._registry.load([*written.imported(request.payers)], author)
        )

    @answering()
    async def ListChanges(  # noqa: N802
        self, request: messages.ListChangesRequest, context: Context
    ) -> messages.ListChangesResponse:
        """List who changed what."""
        return written.changes(await self._registry.records.latest(written.changes_count(request)))

    async def _page(self, query: PayerQuery) -> messages.ListPayersResponse:
        records = self._registry.records
        total = sum([await records.count(Table(str(kind))) for kind in query.kinds])
        return written.payer_page(await page(records, query), total, self._now_ms)

    def _issued(self, done: Done) -> messages.IssueKeyResponse:
        return written.issued(done, self._now_ms)

    def _changed(self, done: Done) -> messages.ChangePayerResponse:
        return written.changed(done, self._now_ms)

    @property
    def _registry(self) -> Registry:
        if self._opened is None:
            raise ImpossibleError(
                "no keys or payers are kept in the store here: write `directory: store` under `extauthz:` and start "
                "anew, or change them where they are"
            )
        return self._opened

    @property
    def _now_ms(self) -> float:
        return self._unix_s() * 1000

    def failed(self, error: Exception) -> None:
        """Tell the log of a failure of ours."""
        self._telemetry.failed("directory", error)
