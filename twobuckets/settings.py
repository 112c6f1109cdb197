"""Flags, environment and file become one frozen value that remembers where each setting came from.

The order is flags > environment > the nearest `twobuckets.toml` > the stack's outputs > defaults.
The stack's outputs need AWS, so they join last, in `Settings.pipeline`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twobuckets.errors import NotFoundError, UsageError
from twobuckets.prices import US_EAST_1
from twobuckets.processor import contract
from twobuckets.units import parse_bytes, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twobuckets.prices import Prices

FILE_NAME: Final = "twobuckets.toml"
LOCAL: Final = "local"
"""The stack name that means the embedded AWS."""

DEFAULT: Final = "default"
ROLES: Final = ("staging", "archive")
"""What a bucket is in a pipeline."""
_FLAG: Final = "flag"
_LONGEST_LINE: Final = 200
_OLDEST_MINOR: Final = 11
"""The oldest Python 3 that the processor runs on."""
_SET_BY_THE_TEMPLATE: Final = frozenset(
    {
        contract.ARCHIVE_BUCKET,
        contract.PROCESS,
        contract.RECORD_CONCURRENCY,
        contract.STORAGE_CLASS,
        contract.QUEUE_URL,
        contract.RETRY_SECONDS,
        contract.FOLDERS,
        contract.PROBES,
        contract.HEAVY_QUEUE,
        contract.HEAVY_DEFINITION,
        contract.HEAVY_LARGER_THAN,
        contract.HEAVY_MATCH,
        contract.HEAVY_TIMEOUT,
    }
)


class _Invalid(ValueError):
    """A value that a setting does not allow; the text completes "must be"."""


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _Invalid("a text that is not empty")
    return value


_BEHIND: Final = "name the bucket behind it, which has the notification, versions and rules"
# What has a bucket's place in S3's API and is none: Amazon S3 user guide, "General purpose bucket
# naming rules", "Access point aliases", "Directory bucket naming rules", "S3 table buckets".
_NO_BUCKETS: Final = (
    (r"arn:.+:accesspoint[:/].+", "an access point's ARN", _BEHIND),
    (r".+-s3alias|.+--op-s3", "an access point's alias", _BEHIND),
    (r".+--ol-s3", "an Object Lambda access point's alias", _BEHIND),
    (r".+\.mrap", "a multi-region access point's alias", _BEHIND),
    (r".+--xa-s3", "an access point of a directory bucket", "S3 tells nobody of files in those"),
    (
        r".+--x-s3",
        "a directory bucket (S3 Express One Zone)",
        "S3 keeps no versions in it and tells nobody of new files",
    ),
    (r".+--table-s3", "a table bucket", "it holds tables and no files"),
)
_ARN_OF_BUCKET: Final = re.compile(r"(?:arn:[a-z-]+:s3:::|s3://)([^/]+)/?")


def _bucket(value: object) -> str:
    """Rules: Amazon S3 user guide, "General purpose bucket naming rules"."""
    name = _text(value)
    for pattern, kind, reason in _NO_BUCKETS:
        if re.fullmatch(pattern, name):
            raise _Invalid(f"a general purpose bucket's name, and this is {kind}: {reason}")
    if named := _ARN_OF_BUCKET.fullmatch(name):
        raise _Invalid(f"a bucket's name alone: {named[1]}")
    if (
        not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", name)
        or ".." in name
        or re.fullmatch(r"\d+\.\d+\.\d+\.\d+", name)
        or name.startswith(("xn--", "sthree-", "amzn-s3-demo-"))
    ):
        raise _Invalid(
            "a bucket name: 3 to 63 lower-case letters, digits, dots and hyphens, beginning and "
            "ending with a letter or digit, not shaped like an IP address"
        )
    return name


def parse_bucket(value: str) -> str:
    """Return the name of a general purpose bucket. Raises ValueError, which completes "must be"."""
    return _bucket(value)


def _roles(value: object) -> tuple[str, ...]:
    roles = _texts(value)
    if not set(roles) <= set(ROLES):
        raise _Invalid('a list of "staging" and "archive"')
    return tuple(role for role in ROLES if role in roles)


def _stack(value: object) -> str:
    """Rule: AWS CloudFormation API reference, CreateStack, StackName."""
    name = _text(value)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,127}", name):
        raise _Invalid(
            "a stack name: at most 128 letters, digits and hyphens, beginning with a letter"
        )
    return name


def _url(value: object) -> str:
    url = _text(value)
    if not re.fullmatch(r"https?://[^/\s]+\S*", url):
        raise _Invalid("a URL that begins with https:// or http://")
    return url


def _endpoint_url(value: object) -> str:
    from urllib.parse import urlsplit

    url = _url(value)
    try:
        parts = urlsplit(url)
        # An impossible port raises only when it is asked for.
        is_host = parts.port != 0 and all(
            0 < len(label) < 64 for label in (parts.hostname or "").removesuffix(".").split(".")
        )
    except ValueError:
        is_host = False
    if not is_host or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise _Invalid("a URL of a scheme, a host and perhaps a port, such as https://host:9000")
    return url


def _one_of(*allowed: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value not in allowed:
            raise _Invalid("one of " + ", ".join(allowed))
        return str(value)

    return parse


def _process(value: object) -> str:
    name = _text(value)
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name):
        raise _Invalid('a module and a function in it, such as "processor:process"')
    return name


def _runtime(value: object) -> str:
    """Which Pythons Lambda has changes every year, so AWS says it; ours needs one from 3.11 on."""
    match = re.fullmatch(r"python3\.(\d{2})", _text(value))
    if match is None or int(match[1]) < _OLDEST_MINOR:
        raise _Invalid(f"a runtime from python3.{_OLDEST_MINOR} on, such as python3.13")
    return match[0]


def _whole(low: int, high: int | None = None) -> Callable[[object], int]:
    """Without `high`, the limit is AWS's, which moves: what is above it AWS refuses."""

    def parse(value: object) -> int:
        if isinstance(value, str) and value.isascii() and value.isdecimal():
            value = int(value)
        if (
            not isinstance(value, int)
            or isinstance(value, bool)
            or value < low
            or (high is not None and value > high)
        ):
            span = f"from {low:,} on" if high is None else f"from {low:,} to {high:,}"
            raise _Invalid(f"a whole number {span}")
        return value

    return parse


def _yes_or_no(value: object) -> bool:
    if value not in (True, False, "true", "false"):
        raise _Invalid("true or false")
    return value in (True, "true")


def _price(value: object) -> float:
    try:
        price = float(value) if isinstance(value, int | float | str) else -1.0
    except ValueError:
        price = -1.0
    if isinstance(value, bool) or not 0 < price < 1000:
        raise _Invalid("a price above 0 in US dollars, such as 0.023")
    return price


def _timeout(value: object) -> timedelta:
    """The longest that Lambda allows depends on how the function is run, so AWS says it."""
    try:
        parsed = parse_duration(str(value)) if not isinstance(value, bool) else None
    except ValueError:
        parsed = None
    if parsed is None or parsed < timedelta(seconds=1):
        raise _Invalid('a duration from 1s on, such as "90s" or "5m"')
    return parsed


def _signature_life(value: object) -> timedelta:
    """A signature ends with the role's credentials, which Lambda renews within 12 hours."""
    life = _timeout(value)
    if not timedelta(minutes=1) <= life <= timedelta(hours=12):
        raise _Invalid('a duration from 1m to 12h, such as "1h"')
    return life


def _line(value: object) -> str:
    line = _text(value)
    if len(line) > _LONGEST_LINE or not line.isprintable():
        raise _Invalid(f"a line of at most {_LONGEST_LINE} characters")
    return line


def _colour(value: object) -> str:
    colour = _text(value).lower()
    if not re.fullmatch(r"#[0-9a-f]{6}", colour):
        raise _Invalid("a colour as six hex digits after a #, such as #0b5cad")
    return colour


def _every(value: object) -> timedelta:
    """EventBridge Scheduler and alarms count in whole minutes."""
    try:
        parsed = parse_duration(str(value)) if not isinstance(value, bool) else None
    except ValueError:
        parsed = None
    if parsed is None or parsed % timedelta(minutes=1) or parsed > timedelta(hours=12):
        raise _Invalid('a duration of whole minutes up to 12h, such as "5m", or "0" for none')
    return parsed


def _job_timeout(value: object) -> timedelta:
    """Limits: AWS Batch API reference, JobTimeout, and the user guide on Fargate's 14 days."""
    timeout = _timeout(value)
    if not timedelta(minutes=1) <= timeout <= timedelta(days=14):
        raise _Invalid('a duration from 1m to 14d, such as "4h"')
    return timeout


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise _Invalid("a list of texts")
    return tuple(value)


def _size(value: object) -> int:
    try:
        return parse_bytes(str(value))
    except ValueError:
        raise _Invalid('a size, such as "500MB" or "2GiB"') from None


def _patterns(value: object) -> tuple[str, ...]:
    patterns = _texts(value)
    if any("," in pattern for pattern in patterns):
        raise _Invalid("a list of patterns without commas in them")
    return patterns


def _ids(kind: str) -> Callable[[object], tuple[str, ...]]:
    def parse(value: object) -> tuple[str, ...]:
        ids = _texts(value)
        if not all(re.fullmatch(rf"{kind}-[0-9a-f]+", one) for one in ids):
            raise _Invalid(f"a list of ids such as {kind}-0123456789abcdef0")
        return ids

    return parse


def _policies(value: object) -> tuple[str, ...]:
    policies = _texts(value)
    if not all(
        re.fullmatch(r"arn:[a-z-]+:iam::(\d{12}|aws):policy/[^,\s]+", arn) for arn in policies
    ):
        raise _Invalid("a list of ARNs of managed policies")
    return policies


def _layers(value: object) -> tuple[str, ...]:
    layers = _texts(value)
    if not all(
        re.fullmatch(r"arn:[a-z-]+:lambda:[a-z0-9-]+:\d{12}:layer:[\w-]+:\d+", arn)
        for arn in layers
    ):
        raise _Invalid("a list of ARNs of layers with their versions")
    return layers


def _variables(value: object) -> tuple[tuple[str, str], ...]:
    """Names: Lambda API reference, Environment; those that Lambda reserves it refuses itself."""
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise _Invalid('a table of texts, such as { TABLE = "orders" }')
    for name in value:
        if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]+", name):
            raise _Invalid(f"a table of variables, and {name!r} can't be the name of one")
        if name in _SET_BY_THE_TEMPLATE:
            raise _Invalid(f"a table of your own variables, and {name} is set by other settings")
    return tuple(value.items())


def _topic(value: object) -> str:
    arn = _text(value)
    if not re.fullmatch(r"arn:[a-z-]+:sns:[a-z0-9-]+:\d{12}:\S+", arn):
        raise _Invalid("the ARN of an SNS topic")
    return arn


def _setting(
    path: str,
    parse: Callable[[object], Any],
    *environment: str,
    default: Any = None,
) -> Any:
    """Describe a setting: its place in the file, its check, and the variables that name it."""
    return field(
        default=default, metadata={"path": path, "parse": parse, "environment": environment}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What flags, environment and file say; None where nobody says anything.

    `origins` tells for each field where its value came from; `directory` is the folder that
    relative paths of the file start from.
    """

    stack: str | None = _setting("stack", _stack, "TWOBUCKETS_STACK")
    """The CloudFormation stack that is the pipeline; `local` is the embedded AWS."""
    profile: str | None = _setting("profile", _text, "AWS_PROFILE")
    """The AWS profile."""
    region: str | None = _setting("region", _text, "AWS_REGION", "AWS_DEFAULT_REGION")
    """The AWS region."""
    endpoint_url: str | None = _setting("endpoint_url", _endpoint_url, "TWOBUCKETS_ENDPOINT_URL")
    """An endpoint that is used instead of AWS's."""

    # The pipeline: read from the stack's outputs unless named here.
    staging: str | None = _setting("staging", _bucket, "TWOBUCKETS_STAGING")
    """The bucket that files are uploaded to."""
    archive: str | None = _setting("archive", _bucket, "TWOBUCKETS_ARCHIVE")
    """The bucket that processed files are moved to."""
    function: str | None = _setting("function", _text, "TWOBUCKETS_FUNCTION")
    """The processor, by name or ARN."""
    log_group: str | None = _setting("log_group", _text, "TWOBUCKETS_LOG_GROUP")
    """The processor's log group; by default Lambda's name for it."""
    failure_queue_url: str | None = _setting("failure_queue_url", _url)
    """The queue of the events that the processor gave up on."""
    upload_role_arn: str | None = _setting("upload_role_arn", _text)
    """The role that `credentials` makes credentials from."""

    # The processor: what `build` and `deploy` make of it.
    source: str = _setting("processor.source", _text, default="processor.py")
    """A module, a package or a folder of modules."""
    process: str = _setting("processor.process", _process, default="processor:process")
    """What gets each file, as `module:function`."""
    requirements: str | None = _setting("processor.requirements", _text)
    """What the processor needs; by default the `requirements.txt` beside the settings, if any."""
    include: tuple[str, ...] = _setting("processor.include", _texts, default=())
    """Patterns of paths to pack that look like secrets, or that lead out of the source."""
    build_sdists: bool = _setting("processor.build_sdists", _yes_or_no, default=False)
    """Whether requirements without a wheel may run their own code to be built."""
    runtime: str = _setting("processor.runtime", _runtime, default="python3.13")
    """Lambda's runtime."""
    architecture: str = _setting(
        "processor.architecture", _one_of("arm64", "x86_64"), default="arm64"
    )
    """The machine that the function runs on."""
    memory_mb: int = _setting("processor.memory_mb", _whole(128), default=512)
    """The function's memory; CPU and network grow with it."""
    ephemeral_storage_mb: int = _setting("processor.ephemeral_storage_mb", _whole(512), default=512)
    """The function's `/tmp`."""
    timeout: timedelta = _setting("processor.timeout", _timeout, default=timedelta(minutes=5))
    """The longest time that one invocation may take."""
    reserved_concurrency: int | None = _setting(
        "processor.reserved_concurrency", _whole(0, 100_000)
    )
    """Invocations that may run at once, reserved for the processor."""
    record_concurrency: int = _setting("processor.record_concurrency", _whole(1, 64), default=1)
    """Files of one event that are processed side by side."""
    folders: str = _setting(
        "processor.folders",
        _one_of(contract.SKIP_FOLDERS, contract.PROCESS_FOLDERS),
        default=contract.SKIP_FOLDERS,
    )
    """What becomes of the empty objects that consoles make for folders: they stay, or are files."""
    policies: tuple[str, ...] = _setting("processor.policies", _policies, default=())
    """ARNs of managed policies for what the function does beside archiving."""
    layers: tuple[str, ...] = _setting("processor.layers", _layers, default=())
    """ARNs of Lambda layers."""
    environment: tuple[tuple[str, str], ...] = _setting(
        "processor.environment", _variables, default=()
    )
    """Variables for your function."""
    storage_class: str = _setting(
        "processor.storage_class",
        _one_of("STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"),
        default="STANDARD",
    )
    """The storage class of archived files."""

    # Files that are too much for Lambda: without an image there are none.
    heavy_image: str | None = _setting("heavy.image", _text)
    """The image that jobs of AWS Batch run in; without it, all files are the function's."""
    heavy_larger_than: int | None = _setting("heavy.larger_than", _size)
    """Files above this size go to jobs."""
    heavy_match: tuple[str, ...] = _setting("heavy.match", _patterns, default=())
    """Patterns of keys, such as `*.mp4`, of other files that go to jobs."""
    heavy_subnets: tuple[str, ...] = _setting("heavy.subnets", _ids("subnet"), default=())
    """The subnets in which jobs run; they must reach S3 and the image's registry."""
    heavy_security_groups: tuple[str, ...] = _setting(
        "heavy.security_groups", _ids("sg"), default=()
    )
    """The security groups of jobs; they need no inbound rule."""
    heavy_vcpus: str = _setting(
        "heavy.vcpus", _one_of("0.25", "0.5", "1", "2", "4", "8", "16"), default="1"
    )
    """The processors of a job."""
    heavy_memory_mb: int = _setting("heavy.memory_mb", _whole(512), default=2048)
    """The memory of a job, one of the sizes that Fargate has for its processors."""
    heavy_storage_gb: int = _setting("heavy.storage_gb", _whole(21, 200), default=21)
    """The disk of a job."""
    heavy_timeout: timedelta = _setting("heavy.timeout", _job_timeout, default=timedelta(hours=4))
    """The longest time that one try of a job may take."""
    heavy_max_vcpus: int = _setting("heavy.max_vcpus", _whole(1), default=16)
    """The processors that all jobs together may use."""

    # The stack: what `deploy` gives the template.
    trigger: str = _setting(
        "deploy.trigger", _one_of("notification", "queue", "ordered"), default="notification"
    )
    """What wakes the processor: S3 itself, a queue, or one that keeps a key's files in order."""
    maximum_concurrency: int | None = _setting("deploy.maximum_concurrency", _whole(2, 1_000))
    """Invocations that the queue may cause at once."""
    existing_buckets: tuple[str, ...] = _setting("deploy.existing_buckets", _roles, default=())
    """Which of `staging` and `archive` are there already: the stack is built around them."""
    cors_origins: tuple[str, ...] = _setting("deploy.cors_origins", _texts, default=())
    """Origins whose web pages may upload."""
    abort_incomplete_uploads_days: int = _setting(
        "deploy.abort_incomplete_uploads_days", _whole(1, 365), default=3
    )
    """Days after which S3 drops the parts of an upload that nobody completed."""
    noncurrent_version_days: int = _setting(
        "deploy.noncurrent_version_days", _whole(1, 3650), default=30
    )
    """Days for which a replaced or deleted version can be brought back."""
    log_retention_days: int = _setting("deploy.log_retention_days", _whole(1, 3653), default=30)
    """Days for which the processor's log is kept."""
    log_level: str = _setting("deploy.log_level", _one_of("TRACE", "DEBUG", "INFO"), default="INFO")
    """The least severe log record that is kept."""
    alarm_topic_arn: str | None = _setting("deploy.alarm_topic_arn", _topic)
    """The SNS topic that is told when the processor has given up on a file."""

    # The upload page: a part of the stack when it is enabled.
    page_enabled: bool = _setting("page.enabled", _yes_or_no, default=False)
    """Whether the stack has a web page that takes files from whoever has a link."""
    page_title: str | None = _setting("page.title", _line)
    """The page's title, where a link has none of its own."""
    page_sentence: str | None = _setting("page.sentence", _line)
    """A sentence under the title."""
    page_accent: str | None = _setting("page.accent", _colour)
    """The page's colour, such as `#0b5cad`."""
    page_throttle_rate: int = _setting("page.throttle_rate", _whole(1), default=20)
    """Requests a second that the page's API takes from everybody together."""
    page_throttle_burst: int = _setting("page.throttle_burst", _whole(1), default=40)
    """Requests that it takes at once."""
    page_signature_life: timedelta = _setting(
        "page.signature_life", _signature_life, default=timedelta(hours=1)
    )
    """The longest life of a signature that the page is given."""
    page_longest_link: timedelta = _setting(
        "page.longest_link", _timeout, default=timedelta(days=30)
    )
    """The longest life of a link."""

    watch_every: timedelta = _setting("watch.every", _every, default=timedelta(minutes=5))
    """How often the watcher in the account looks at staging; `0` for no watcher."""

    fleet_regions: tuple[str, ...] = _setting("fleet.regions", _texts, default=())
    """The regions in which `--all` looks for pipelines; by default the one in use."""

    # Estimates of costs start from this price of S3 Standard.
    usd_per_gb_month: float = _setting("prices.usd_per_gb_month", _price, default=0.023)
    """The price of S3 Standard that estimates start from."""

    origins: Mapping[str, str] = field(default_factory=dict)
    directory: Path = field(default_factory=Path)
    file: Path | None = None

    @property
    def is_local(self) -> bool:
        """Tell whether the pipeline runs on the embedded AWS."""
        return self.stack == LOCAL

    @property
    def names_pair(self) -> bool:
        """Tell whether both buckets are named without asking a stack."""
        return self.staging is not None and self.archive is not None

    @property
    def prices(self) -> Prices:
        """What storage and requests cost, as far as an estimate can know."""
        return US_EAST_1.scaled_to(self.usd_per_gb_month)

    def pipeline(self, outputs: Mapping[str, str]) -> Pipeline:
        """Return the pipeline, with what nobody named taken from the stack's `outputs`.

        What the stack says of its own bucket or function is left out where another one is named.
        Raises NotFoundError when a bucket is named nowhere.
        """
        outputs = self._relevant_outputs(outputs)
        values: dict[str, str | None] = {}
        origins: dict[str, str] = {}
        for name, output in _OUTPUTS.items():
            given = getattr(self, name)
            values[name] = given if given is not None else outputs.get(output)
            if given is not None:
                origins[name] = self.origins[name]
            elif output in outputs:
                origins[name] = f"stack {self.stack}, output {output}"
        if values["log_group"] is None and values["function"] is not None:
            values["log_group"] = f"/aws/lambda/{function_name_of(values['function'])}"
            origins["log_group"] = "Lambda's name for it"
        for name in ("staging", "archive"):
            if values[name] is None:
                raise _no_pair(self, name)
        # A pair made by hand on the embedded AWS has no stack there.
        stack = None if self.is_local and not outputs else self.stack
        return Pipeline(stack=stack, origins=origins, **values)  # type: ignore[arg-type]

    def _relevant_outputs(self, outputs: Mapping[str, str]) -> Mapping[str, str]:
        """Return what the stack says of the bucket and the function that are in use."""
        is_other_bucket = self.staging not in (None, outputs.get("StagingBucket"))
        if is_other_bucket and self.names_pair:
            return {}
        left_out = {"UploadRoleArn"} if is_other_bucket else set()
        deployed = outputs.get("FunctionName")
        if self.function is not None and function_name_of(self.function) != deployed:
            left_out |= {"LogGroup", "FailureQueueUrl"}
        return {name: value for name, value in outputs.items() if name not in left_out}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """Staging bucket, processor and archive bucket, deployed by us or named in the file.

    `function` is a name or ARN, maybe with a qualifier; it and what follows are None where nobody
    named them.
    """

    stack: str | None
    staging: str
    archive: str
    function: str | None = None
    log_group: str | None = None
    failure_queue_url: str | None = None
    upload_role_arn: str | None = None
    origins: Mapping[str, str] = field(default_factory=dict)


def function_name_of(function: str) -> str:
    """Return the name in a function's name, `name:qualifier`, ARN or partial ARN.

    The four forms: Lambda API reference, Invoke, FunctionName.
    """
    return _split_function(function)[0]


def qualifier_of(function: str) -> str | None:
    """Return the version or alias in `name:qualifier` or an ARN."""
    after = _split_function(function)[1:]
    return after[0] if after else None


def _split_function(function: str) -> list[str]:
    parts = function.split(":")
    if "function" in parts[1:-1]:
        return parts[parts.index("function", 1) + 1 :]
    return parts


# The field of a pipeline and the stack output that holds it.
_OUTPUTS: Final = {
    "staging": "StagingBucket",
    "archive": "ArchiveBucket",
    "function": "FunctionName",
    "log_group": "LogGroup",
    "failure_queue_url": "FailureQueueUrl",
    "upload_role_arn": "UploadRoleArn",
}
_SETTINGS: Final = {f.name: f for f in fields(Settings) if "path" in f.metadata}
_PATHS: Final = {f.metadata["path"]: name for name, f in _SETTINGS.items()}
_TABLES: Final = frozenset(path.partition(".")[0] for path in _PATHS if "." in path)
# What only says how to reach AWS holds for every stack; the rest describes one pipeline.
_OF_ONE_PIPELINE: Final = frozenset(_OUTPUTS)


def load(flags: Mapping[str, str | None], environ: Mapping[str, str], cwd: Path) -> Settings:
    """Return the settings that flags, environment and the nearest `twobuckets.toml` add up to.

    `flags` maps field names, and `config` for the file, to what was given or None. When a flag or
    variable chooses another stack than the file's, the pair that the file names is left out: it
    describes the file's stack. Raises UsageError naming the flag, variable, or file and key.
    """
    config = flags.get("config") or environ.get("TWOBUCKETS_CONFIG")
    file = Path(config).absolute() if config else _nearest_file(cwd.absolute())
    in_file = _read(file) if file is not None else {}
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, setting in _SETTINGS.items():
        for given, origin in _sources(name, flags, environ, in_file, file):
            try:
                values[name] = setting.metadata["parse"](given)
            except _Invalid as error:
                raise UsageError(
                    f"{origin}: {setting.metadata['path']} is {given!r}, but it must be {error}"
                ) from None
            origins[name] = origin
            break
        else:
            if setting.default is not None:
                origins[name] = DEFAULT
    if file is not None and "stack" in values and values["stack"] != in_file.get("stack"):
        for name in _OF_ONE_PIPELINE:
            if origins.get(name) == str(file):
                del values[name], origins[name]
    return Settings(
        **values, origins=origins, directory=file.parent if file else cwd.absolute(), file=file
    )


def state_directory(environ: Mapping[str, str], room: str) -> Path:
    """Return where a part of the program keeps its state (XDG Base Directory Specification)."""
    base = environ.get("XDG_STATE_HOME", "")
    # The specification has relative paths ignored.
    home = Path(base) if base.startswith("/") else Path("~/.local/state").expanduser()
    return home / "twobuckets" / room


def local_state(environ: Mapping[str, str]) -> Path:
    """Return the state directory of the embedded AWS."""
    return state_directory(environ, LOCAL)


def _sources(
    name: str,
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    in_file: Mapping[str, object],
    file: Path | None,
) -> list[tuple[object, str]]:
    metadata = _SETTINGS[name].metadata
    found: list[tuple[object, str]] = []
    flag = flags.get(name)
    if flag is not None:
        found.append((flag, f"{_FLAG} --{name.replace('_', '-')}"))
    found += [
        (environ[variable], f"environment {variable}")
        for variable in metadata["environment"]
        if environ.get(variable)
    ]
    if metadata["path"] in in_file:
        found.append((in_file[metadata["path"]], str(file)))
    return found


def _nearest_file(cwd: Path) -> Path | None:
    for directory in (cwd, *cwd.parents):
        candidate = directory / FILE_NAME
        if candidate.is_file():
            return candidate
    return None


def _read(file: Path) -> dict[str, object]:
    """Return the file's values by their dotted path; every key is one that a setting has."""
    import tomllib

    try:
        tables = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise UsageError(
            f"Could not read the settings in {file}: {error.strerror}",
            hint="`twobuckets init` writes a new one.",
        ) from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: not UTF-8 text, at byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file}: not TOML: {error}") from None
    values: dict[str, object] = {}
    for key, value in tables.items():
        if isinstance(value, dict) and key in _TABLES:
            values.update({f"{key}.{name}": item for name, item in value.items()})
        else:
            values[key] = value
    for path in values:
        if path not in _PATHS:
            raise _unknown(path, file)
    return values


def _unknown(path: str, file: Path) -> UsageError:
    import difflib

    near = difflib.get_close_matches(path, _PATHS, n=1)
    table, _, name = path.rpartition(".")
    line = _line_of(name, file)
    allowed = [p for p in _PATHS if p.rpartition(".")[0] == table]
    return UsageError(
        f"{file}, line {line}: there is no setting {path}"
        if line
        else f"{file}: there is no setting {path}",
        hint=f"Did you mean {near[0]}?" if near else "Allowed here: " + ", ".join(allowed),
    )


def _line_of(name: str, file: Path) -> int | None:
    pattern = re.compile(rf"\s*\[*\s*[\"']?{re.escape(name)}[\"']?\s*[\]=]")
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        if pattern.match(line):
            return number
    return None


def _no_pair(settings: Settings, missing: str) -> NotFoundError:
    if settings.stack is not None:
        return NotFoundError(
            f"The stack {settings.stack} has no output {_OUTPUTS[missing]}, so it is not a "
            "pipeline of twobuckets",
            hint=f"For a pair made by hand, name staging and archive in {FILE_NAME}.",
        )
    return NotFoundError(
        f"No pipeline is given: the {missing} bucket is not named",
        hint=f"Give --stack NAME (--stack {LOCAL} needs no AWS account), set TWOBUCKETS_STACK, or "
        f"name stack, or staging and archive, in {FILE_NAME}; `twobuckets init` writes one.",
    )
