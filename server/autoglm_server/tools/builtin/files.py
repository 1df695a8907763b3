"""Reading and writing text files in the workspace."""

# ruff: noqa: RUF001 - a phrase stands on one line; Chinese has its own commas
from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypedDict

from autoglm.model import Effect, Phrase, ToolExample
from autoglm.tool import Constraint, FunctionTool, ToolError, tool
from autoglm.wire import canonical_json
from autoglm_server.tools.builtin._workspace import PATH_MAX, Workspace, kind_of

FilePath = Annotated[str, Constraint(min_length=1, max_length=PATH_MAX)]
"""A path relative to the workspace."""

FileText = str | float | bool
"""What is written to a file: text, or a number or boolean, such as the result of another step, as JSON writes it."""


class Entry(TypedDict):
    """What stands in a folder."""

    name: str
    kind: Literal["file", "folder", "link", "other"]
    size_bytes: int


class Listing(TypedDict):
    """A folder's content: the names (folders end in a slash), and the same in detail."""

    result: list[str]
    entries: list[Entry]
    truncated: bool


class Content(TypedDict):
    """A file's content."""

    content: str
    size_bytes: int


class Written(TypedDict):
    """What became of a file."""

    path: str
    size_bytes: int
    created: bool


class Appended(TypedDict):
    """What became of a file."""

    path: str
    size_bytes: int


_LIST_PHRASES = (
    Phrase("list [all] [the] files [in [the] [folder|directory] {path:path}]", "Files: {output.result}.", "en"),
    Phrase(
        "list [all] [the] files [in|of] (here|[the] workspace|[the|this] [current|root] (folder|directory))",
        "Files: {output.result}.",
        "en",
    ),
    Phrase(
        "(what|which) files are [there] [in|of] (here|[the] workspace|[the|this] (folder|directory))",
        "Files: {output.result}.",
        "en",
    ),
    Phrase("(what|which) files are [there]", "Files: {output.result}.", "en"),
    Phrase("(what|which) files are [there] in [the] [folder|directory] {path:path}", "Files: {output.result}.", "en"),
    Phrase("列出[文件夹|目录]{path:path}(里|中|下)[的][所有|全部]文件", "文件：{output.result}。", "zh"),
    Phrase("列出[这里|工作区|当前文件夹|当前目录][里|中|下][的][所有|全部]文件", "文件：{output.result}。", "zh"),
    Phrase("[这里|工作区|当前文件夹|当前目录][里|中|下]有(哪些|什么)文件", "文件：{output.result}。", "zh"),
)
_READ_PHRASES = (
    Phrase("(read|show|open|print) [me] [the] [(contents|content|text) of] [the] file {path:path}", "{output}", "en"),
    Phrase("(read|show|open|print) [me] [the] [(contents|content|text) of] {path:file} [back]", "{output}", "en"),
    Phrase("[the] (contents|content|text) of [the] [file] {path:file}", "{output}", "en"),
    Phrase("(读取|读|打开|显示|查看)[一下]{path:file}[的内容]", "{output}", "zh"),
    Phrase("(读取|读|打开|显示|查看)文件{path:path}[的内容]", "{output}", "zh"),
)
_WRITE_PHRASES = (
    Phrase("(write|save|put) {content:text} (to|into|in) [the|a] [new] [file] {path:path}", "Wrote {path}.", "en"),
    Phrase(
        "(create|make|write) [a|the] [new] [text] file [named|called] {path:path} (with|containing|that contains|that says) "
        "[the] [content|contents|text] {content:text}",
        "Wrote {path}.",
        "en",
    ),
    Phrase(
        "(create|make|write) {path:file} (with|containing) [the] [content|contents|text] {content:text}",
        "Wrote {path}.",
        "en",
    ),
    Phrase("(write|save|put|store) (to|into|in) [the|a] [new] file {path:path} => content={it}", "Wrote {path}.", "en"),
    Phrase("(write|save|put|store) (to|into|in) {path:file} => content={it}", "Wrote {path}.", "en"),
    Phrase("(写|写入|保存|存){content:quoted}(到|进|入)[新][文件]{path:path}[里|中]", "已写入 {path}。", "zh"),
    Phrase("(把|将){content:text}(写入|写到|写进|保存到|存到|存入)[新][文件]{path:path}", "已写入 {path}。", "zh"),
    Phrase("(往|向|在)[文件]{path:file}[里面|里|中|内](写入|写上|写){content:text}", "已写入 {path}。", "zh"),
    Phrase(
        "(创建|新建|建立|建)[一个|个][新][的]文件{path:path}[，](内容为|内容是|内容|里面写|写入){content:text}",
        "已写入 {path}。",
        "zh",
    ),
    Phrase("(写入|写到|写进|保存到|存到|存入)[新][文件]{path:file}[里|中] => content={it}", "已写入 {path}。", "zh"),
)
_APPEND_PHRASES = (
    Phrase("append {content:text} to [the] [(end of [the])] [file] {path:path}", "Appended to {path}.", "en"),
    Phrase("append to [the] [(end of [the])] [file] {path:file} => content={it}", "Appended to {path}.", "en"),
    Phrase(
        "(往|向|在)[文件]{path:file}[末尾|后面|里面|里|中|内](追加|添加|加上|加入){content:text}",
        "已追加到 {path}。",
        "zh",
    ),
    Phrase("(追加到|添加到|加到)[文件]{path:file}[的][末尾|后面] => content={it}", "已追加到 {path}。", "zh"),
    Phrase("(追加|添加){content:quoted}(到|进)[文件]{path:path}[的][末尾|后面|里|中]", "已追加到 {path}。", "zh"),
    Phrase("(把|将){content:text}(追加到|添加到|加到)[文件]{path:path}[的][末尾|后面]", "已追加到 {path}。", "zh"),
)


def _encoded(content: FileText) -> bytes:
    return (content if isinstance(content, str) else canonical_json(content)).encode()


def file_tools(workspace: Path) -> list[FunctionTool]:
    """Give the tools for files in ``workspace``; none of them reaches outside of it or follows a link."""
    files = Workspace(workspace)

    @tool(
        name="files.list",
        title="List files",
        effect=Effect.READ_ONLY,
        tags=("files",),
        examples=(ToolExample("list files", {}),),
        phrases=_LIST_PHRASES,
    )
    def list_files(path: FilePath = ".") -> Listing:
        """List what a folder of the workspace holds, by name; at most 1000 entries.

        Args:
            path: The folder, relative to the workspace; "." is the workspace itself.
        """
        found, truncated = files.entries(path)
        entries: list[Entry] = [
            Entry(name=name, kind=kind_of(seen), size_bytes=seen.st_size)  # type: ignore[typeddict-item]  # one of these
            for name, seen in found
        ]
        names = [f"{entry['name']}/" if entry["kind"] == "folder" else entry["name"] for entry in entries]
        return Listing(result=names, entries=entries, truncated=truncated)

    @tool(
        name="files.read",
        title="Read a file",
        effect=Effect.READ_ONLY,
        tags=("files",),
        examples=(ToolExample("read notes.txt", {"path": "notes.txt"}),),
        phrases=_READ_PHRASES,
    )
    def read_file(path: FilePath) -> Content:
        """Read a text file (UTF-8) of the workspace, up to 512 KiB.

        Args:
            path: The file, relative to the workspace.
        """
        data = files.read(path)
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            told = f"{path!r} is not text in UTF-8: byte {error.start} cannot be read"
            raise ToolError(told, reason="NOT_TEXT") from None

        if "\0" in text:
            raise ToolError(f"{path!r} is not text: it has a zero byte", reason="NOT_TEXT")

        return Content(content=text, size_bytes=len(data))

    @tool(
        name="files.write",
        title="Write a file",
        effect=Effect.IDEMPOTENT,
        destructive=True,
        tags=("files",),
        examples=(
            ToolExample(
                'write "hello world" to notes.txt',
                {"path": "notes.txt", "content": "hello world"},
                {"path": "notes.txt", "size_bytes": 11},
            ),
        ),
        phrases=_WRITE_PHRASES,
    )
    def write_file(path: FilePath, content: FileText) -> Written:
        """Write a text file of the workspace, in place of what it held; folders on the way are made.

        Whoever reads it at the same time sees all of the old or all of the new content.

        Args:
            path: The file, relative to the workspace.
            content: The whole text; a number or boolean is written as JSON writes it.
        """
        data = _encoded(content)
        created = files.write(path, data)
        return Written(path=path, size_bytes=len(data), created=created)

    @tool(
        name="files.append",
        title="Append to a file",
        effect=Effect.NON_IDEMPOTENT,
        requires_approval=True,
        tags=("files",),
        examples=(
            ToolExample('append "more" to notes.txt', {"path": "notes.txt", "content": "more"}, {"path": "notes.txt"}),
        ),
        phrases=_APPEND_PHRASES,
    )
    def append_file(path: FilePath, content: FileText) -> Appended:
        """Add text to the end of a file of the workspace, which is made if it is not there.

        Args:
            path: The file, relative to the workspace.
            content: The text to add; no line break is put before or after it.
        """
        return Appended(path=path, size_bytes=files.append(path, _encoded(content)))

    return [list_files, read_file, write_file, append_file]
