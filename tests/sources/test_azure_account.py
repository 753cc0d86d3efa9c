"""Which account of Azure the environment names, and how its client and the library of Delta tables are told."""

from __future__ import annotations

import pytest

from featurestore.errors import ConfigError
from featurestore.sources.object_stores import AzureAccount

NAMES = ("CONNECTION_STRING", "ACCOUNT", "KEY", "SAS_TOKEN")
HERE = "http://127.0.0.1:10000/shop"


@pytest.mark.parametrize(
    ("said", "account"),
    [
        ({"ACCOUNT": "shop"}, ("shop", None, None, None)),
        ({"ACCOUNT": "shop", "KEY": "a2V5=="}, ("shop", "a2V5==", None, None)),
        ({"ACCOUNT": "shop", "KEY": "", "SAS_TOKEN": "sv=1&sig=x"}, ("shop", None, "sv=1&sig=x", None)),
        ({"CONNECTION_STRING": f"AccountName=shop;AccountKey=a2V5==;BlobEndpoint={HERE};"}, ("shop", "a2V5==", None, HERE)),
        ({"CONNECTION_STRING": "AccountName=shop;SharedAccessSignature=sv=1&sig=x", "ACCOUNT": "other", "KEY": "others"},
         ("shop", None, "sv=1&sig=x", None)),
    ],
)  # fmt: skip
def test_what_the_environment_says(
    said: dict[str, str], account: tuple[str | None, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        monkeypatch.delenv(f"AZURE_STORAGE_{name}", raising=False)
    with pytest.raises(ConfigError, match="AZURE_STORAGE_ACCOUNT or AZURE_STORAGE_CONNECTION_STRING"):
        AzureAccount.of_environment()
    for name, text in said.items():
        monkeypatch.setenv(f"AZURE_STORAGE_{name}", text)
    found = AzureAccount.of_environment()
    assert found == account
    words = {"name": "account_name", "key": "account_key", "sas_token": "sas_key", "endpoint": "endpoint"}
    options = {f"azure_storage_{words[name]}": value for name, value in found._asdict().items() if value is not None}
    assert found.options() == options | ({"azure_allow_http": "true"} if found.endpoint else {})
    for endpoint in (None, HERE, "https://shop.blob.core.windows.net", "https://shop.blob.core.usgovcloudapi.net/"):
        assert found._replace(endpoint=endpoint).file_system().type_name == "abfs"
