"""LiteLLM's own example configurations load, and no setting of its that limits or prices anything is unknown here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from extauthz.config.litellm import FALLBACK_KEYS, KNOWN_KEYS
from extauthz.config.litellm_money import MONEY
from tests.support.litellm import ENVIRONMENT, NEEDED, PROGRAM
from tests.support.litellm_configs import carried, documented, refused, taken_by_litellm

pytestmark = [NEEDED, pytest.mark.litellm]

# A checkout of LiteLLM's documentation.
DOCS = os.environ.get("EXTAUTHZ_LITELLM_DOCS", "")

# More than these are in every release and edition of either.
CARRIED_MIN, DOCUMENTED_MIN = 20, 1000

# Names that sound like it, and neither limit nor price anything: reports, alerts, clean-ups, and LiteLLM's own holds.
HARMLESS = frozenset(
    {
        "cost_calculator",
        "disable_fallbacks_on_per_model_rate_limits",
        "enforce_fallback_model_access",
        "longer_context_model_fallback_dict",
        "budget_manager",
        "default_key_max_budget_alert_emails",
        "disable_budget_reservation",
        "disable_end_user_cost_tracking",
        "disable_end_user_cost_tracking_prometheus_only",
        "enable_end_user_cost_tracking_prometheus_only",
        "fallback_access_check",
        "fallback_budget_check",
        "fallback_on_unsupported_params",
        "include_cost_in_streaming_usage",
        "max_fallbacks",
        "max_ui_session_budget",
        "maximum_spend_logs_cleanup_run_budget",
        "model_cost",
        "model_cost_map_url",
        "prometheus_initialize_budget_metrics",
        "prometheus_user_budget_label_include_email_alias",
        "spend_capture_rate_check",
    }
)

ASK = """
import inspect, json, re
import litellm
from litellm import Router
from litellm.proxy._types import ConfigGeneralSettings
from litellm.types.router import LiteLLM_Params
names = [name for name, value in vars(litellm).items() if not callable(value) and not name.startswith("_")]
names += [*ConfigGeneralSettings.model_fields, *inspect.signature(Router.__init__).parameters]
names += [name for name in LiteLLM_Params.model_fields if "budget" in name]
print(json.dumps(sorted({name for name in names if re.search("budget|cost|margin|discount|fallback", name)})))
"""


def test_what_the_package_carries(tmp_path: Path) -> None:
    """Every example that LiteLLM's package carries loads, if LiteLLM itself takes it."""
    examples = carried()
    mistakes = {each.place: found for each in examples if (found := refused(each, tmp_path))}

    assert len(examples) - len(mistakes) > CARRIED_MIN
    assert {} == {each.place: mistakes[each.place] for each in taken_by_litellm(examples, mistakes)}


@pytest.mark.skipif(not DOCS, reason="needs LiteLLM's documentation: EXTAUTHZ_LITELLM_DOCS=path")
def test_what_the_documentation_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every example of LiteLLM's documentation loads that LiteLLM itself takes."""
    examples = documented(Path(DOCS))
    mistakes = {each.place: found for each in examples if (found := refused(each, tmp_path))}
    with capsys.disabled():
        lines = [f"{len(examples)} examples, of which {len(examples) - len(mistakes)} load. The others:"]
        lines += [f"  {place}: {found[0]}" for place, found in mistakes.items()]
        sys.stdout.write("\n".join(("", *lines, "")))

    assert len(examples) > DOCUMENTED_MIN
    assert {} == {each.place: mistakes[each.place] for each in taken_by_litellm(examples, mistakes)}


def test_no_setting_about_money_is_unknown() -> None:
    """What LiteLLM's newest settings limit or price is read here, is told by itself, or is known to be harmless."""
    answer = subprocess.run(
        [PROGRAM.with_name("python"), "-c", ASK],
        env=dict(ENVIRONMENT),
        capture_output=True,
        text=True,
        check=True,
        timeout=180,
    ).stdout
    names = set(json.loads(answer))

    assert {"max_budget", "provider_budget_config"} <= names
    assert set() == names - frozenset().union(*KNOWN_KEYS.values()) - FALLBACK_KEYS - MONEY.keys() - HARMLESS
