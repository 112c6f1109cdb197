"""What Lambda, IAM and CloudWatch say of the function and its log."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twobuckets.aws import Meaning, meaning_of
from twobuckets.pipeline.lookups import CouldNotLook, Gone
from twobuckets.pipeline.policies import statements_of
from twobuckets.processor.contract import FOLDERS, HANDLER, HEAVY_QUEUE, PROCESS_FOLDERS, QUEUE_URL
from twobuckets.settings import function_name_of, qualifier_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from twobuckets.aws.clients import Aws
    from twobuckets.pipeline.lookups import Lookups
    from twobuckets.settings import Pipeline

_MISSING: Final = ("ResourceNotFoundException",)
_LATEST: Final = "$LATEST"
_NO_FUNCTION: Final = "nothing names the processor: set function in twobuckets.toml"
LONGEST: Final = "Duration"
_MINUTES_KEPT: Final = timedelta(days=15)
_METRICS: Final = (
    "Invocations",
    "Errors",
    "Throttles",
    "AsyncEventsDropped",
    "DestinationDeliveryFailures",
    LONGEST,
)


class Home(NamedTuple):
    """The partition, region and account that a resource is in."""

    partition: str
    region: str
    account: str


class FunctionFacts:
    """The pipeline's function. Raises CouldNotLook, also where the settings name none."""

    def __init__(self, aws: Aws, pipeline: Pipeline, now: datetime, lookups: Lookups) -> None:
        self._aws = aws
        self._pipeline = pipeline
        self._now = now
        self._lookups = lookups

    @property
    def named(self) -> str:
        """The function as the settings name it. Raises CouldNotLook when they name none."""
        if self._pipeline.function is None:
            raise CouldNotLook("the processor", _NO_FUNCTION, None)
        return self._pipeline.function

    @property
    def name(self) -> str:
        """The function's name without qualifier. Raises CouldNotLook when none is named."""
        return function_name_of(self.named)

    @property
    def qualifier(self) -> str | None:
        """The version or alias that the settings name."""
        return qualifier_of(self._pipeline.function or "")

    @property
    def is_ours(self) -> bool:
        """Tell whether the processor is made with `twobuckets.processor`."""
        return self.configuration().get("Handler") == HANDLER

    @property
    def arn(self) -> str:
        """The ARN that a notification is to name, with the qualifier that the settings name."""
        unqualified = ":".join(str(self.configuration()["FunctionArn"]).split(":")[:7])
        return f"{unqualified}:{self.qualifier}" if self.qualifier else unqualified

    @property
    def home(self) -> Home:
        """Where the function is. Raises Gone when there is no such function."""
        _, partition, _, region, account, *_ = str(self.configuration()["FunctionArn"]).split(":")
        return Home(partition, region, account)

    def timeout(self) -> timedelta:
        """Return how long an invocation may take."""
        return timedelta(seconds=self.configuration()["Timeout"])

    def configuration(self) -> dict[str, Any]:
        """Return the function's configuration. Raises Gone when there is no such function."""
        found = self._of_function("get_function_configuration", "lambda:GetFunctionConfiguration")
        if found is None:
            raise Gone(f"the function {self.named}", "function-missing")
        return found

    def variables(self) -> Mapping[str, str]:
        """Return the function's environment variables."""
        return variables_in(self.configuration())

    @property
    def queue_url(self) -> str | None:
        """The queue that a processor of ours knows as the one that wakes it."""
        return self.variables().get(QUEUE_URL) if self.is_ours else None

    @property
    def job_queue(self) -> str | None:
        """The queue of AWS Batch that a processor of ours hands large files to."""
        return self.variables().get(HEAVY_QUEUE) if self.is_ours else None

    @property
    def skips_folders(self) -> bool:
        """Tell whether the processor leaves objects that stand for folders; so it is by default."""
        try:
            return self.variables().get(FOLDERS) != PROCESS_FOLDERS
        except CouldNotLook:
            return True

    def policy(self) -> list[Mapping[str, Any]]:
        """Return the statements of the function's resource policy."""
        answer = self._of_function("get_policy", "lambda:GetPolicy") or {}
        return statements_of(answer.get("Policy"))

    def reserved_concurrency(self) -> int | None:
        """Return the concurrency reserved for the function; None where nothing is."""
        answer = self._lookups.read(
            "the function's reserved concurrency",
            "lambda:GetFunctionConcurrency",
            lambda: self._aws.functions.get_function_concurrency(FunctionName=self.name),
            absent=_MISSING,
        )
        return (answer or {}).get("ReservedConcurrentExecutions")

    def invoke_config(self) -> dict[str, Any] | None:
        """Return how asynchronous invocations are retried; None for Lambda's defaults."""

        def call() -> Any:
            paginator = self._aws.functions.get_paginator("list_function_event_invoke_configs")
            pages = paginator.paginate(FunctionName=self.name)
            return [config for page in pages for config in page["FunctionEventInvokeConfigs"]]

        what, permission = "the function's retries", "lambda:ListFunctionEventInvokeConfigs"
        configs = self._lookups.read(what, permission, call, absent=_MISSING) or []
        wanted = self.qualifier or _LATEST
        return next(
            (c for c in configs if (qualifier_of(c["FunctionArn"]) or _LATEST) == wanted), None
        )

    def event_sources(self) -> list[dict[str, Any]]:
        """Return the function's event source mappings."""

        def call() -> Any:
            pages = self._aws.functions.get_paginator("list_event_source_mappings").paginate(
                FunctionName=str(self._pipeline.function)
            )
            return [source for page in pages for source in page["EventSourceMappings"]]

        what, permission = "the function's event sources", "lambda:ListEventSourceMappings"
        return self._lookups.read(what, permission, call, absent=_MISSING) or []

    def event_source_arns(self) -> list[str]:
        """Return the ARNs of what feeds the function."""
        return [str(source.get("EventSourceArn")) for source in self.event_sources()]

    def _of_function(self, operation: str, permission: str) -> dict[str, Any] | None:
        named = self.named
        words = operation.removeprefix("get_function_").removeprefix("get_").replace("_", " ")

        def call() -> Any:
            return getattr(self._aws.functions, operation)(FunctionName=named)

        found: dict[str, Any] | None = self._lookups.read(
            f"the function's {words}", permission, call, absent=_MISSING
        )
        return found

    def allowed(self, role_arn: str, actions: Sequence[str], resource: str) -> dict[str, str]:
        """Return IAM's decision by action, such as "allowed" or "implicitDeny", by simulation."""

        def call() -> Any:
            pages = self._aws.iam.get_paginator("simulate_principal_policy").paginate(
                PolicySourceArn=role_arn, ActionNames=actions, ResourceArns=[resource]
            )
            return {
                result["EvalActionName"]: result["EvalDecision"]
                for page in pages
                for result in page["EvaluationResults"]
            }

        what = f"what {role_arn} may do on {resource} ({', '.join(actions)})"
        decisions: dict[str, str] = self._lookups.read(what, "iam:SimulatePrincipalPolicy", call)
        return decisions

    def metrics(self) -> dict[str, float]:
        """Return the function's metrics of the last day by their name.

        Sums of counts; of `Duration` the longest, in milliseconds.
        """

        def call() -> Any:
            answer = self._aws.cloudwatch.get_metric_data(
                StartTime=self._now - timedelta(days=1),
                EndTime=self._now,
                MetricDataQueries=[
                    {
                        "Id": name.lower(),
                        "MetricStat": {
                            "Metric": {
                                "Namespace": "AWS/Lambda",
                                "MetricName": name,
                                "Dimensions": [{"Name": "FunctionName", "Value": self.name}],
                            },
                            "Period": 3600,
                            "Stat": "Maximum" if name == LONGEST else "Sum",
                        },
                    }
                    for name in _METRICS
                ],
            )
            values = {r["Id"]: r.get("Values", []) for r in answer["MetricDataResults"]}
            return {
                name: (max if name == LONGEST else sum)(values.get(name.lower()) or [0.0])
                for name in _METRICS
            }

        name = self.name
        sums: dict[str, float] = self._lookups.read(
            f"the metrics of {name}", "cloudwatch:GetMetricData", call
        )
        return sums

    def throttled_minutes(self, since: datetime) -> list[datetime]:
        """Return the minutes since an instant in which the function was throttled, in order.

        CloudWatch keeps values of a minute for 15 days (user guide, "Metrics retention").
        """
        start_at = max(since, self._now - _MINUTES_KEPT)

        def call() -> Any:
            pages = self._aws.cloudwatch.get_paginator("get_metric_data").paginate(
                StartTime=start_at,
                EndTime=self._now,
                MetricDataQueries=[
                    {
                        "Id": "throttles",
                        "MetricStat": {
                            "Metric": {
                                "Namespace": "AWS/Lambda",
                                "MetricName": "Throttles",
                                "Dimensions": [{"Name": "FunctionName", "Value": self.name}],
                            },
                            "Period": 60,
                            "Stat": "Sum",
                        },
                    }
                ],
            )
            return sorted(
                at
                for page in pages
                for result in page["MetricDataResults"]
                for at, count in zip(
                    result.get("Timestamps", []), result.get("Values", []), strict=True
                )
                if count
            )

        what = f"when {self.name} was throttled since {start_at:%Y-%m-%d %H:%M}"
        minutes: list[datetime] = self._lookups.read(what, "cloudwatch:GetMetricData", call)
        return minutes

    @property
    def log_group(self) -> str:
        """The log group that the function writes to. Raises CouldNotLook when nothing tells."""
        try:
            group = self.configuration().get("LoggingConfig", {}).get("LogGroup")
        except CouldNotLook:
            group = None
        group = group or self._pipeline.log_group
        if group is None:
            raise CouldNotLook("the processor's log", _NO_FUNCTION, None)
        return str(group)

    def log_settings(self) -> dict[str, Any] | None:
        """Return the log group's description; None when there is no such group."""
        name = self.log_group

        def call() -> Any:
            pages = self._aws.logs.get_paginator("describe_log_groups").paginate(
                logGroupNamePrefix=name
            )
            groups = (group for page in pages for group in page["logGroups"])
            return next((dict(g) for g in groups if g.get("logGroupName") == name), None)

        found: dict[str, Any] | None = self._lookups.read(
            f"the log group {name}", "logs:DescribeLogGroups", call
        )
        return found


def variables_in(configuration: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the environment variables in a function's configuration.

    Raises CouldNotLook where Lambda tells an error in their place, as it does when the key that
    encrypts them may not be used (Lambda API reference, EnvironmentResponse).
    """
    environment = configuration.get("Environment", {})
    if error := environment.get("Error"):
        code, message = error.get("ErrorCode", ""), error.get("Message", "")
        is_denied = meaning_of(code) is Meaning.DENIED
        reason = "access denied" if is_denied else f"{code}: {message}"
        raise CouldNotLook(
            "the function's environment", reason, "kms:Decrypt" if is_denied else None
        )
    variables: Mapping[str, str] = environment.get("Variables", {})
    return variables
