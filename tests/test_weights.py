"""Model hubs, where there is a network and where there is none."""

import logging
import socket

import pytest
from huggingface_hub import constants

from morgana import weights


@pytest.fixture
def unreachable(monkeypatch):
    """No proxy, and no host's name leads anywhere; which were asked for."""
    asked = []

    def fails(host, port):
        asked.append(host)
        raise socket.gaierror

    monkeypatch.setattr(weights, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", fails)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return asked


def test_without_a_network_the_hub_is_not_tried(unreachable):
    with weights.hub("nobody/nothing"):
        assert constants.is_offline_mode()
        assert not logging.getLogger("huggingface_hub").isEnabledFor(logging.ERROR)
    assert not constants.is_offline_mode()
    assert logging.getLogger("huggingface_hub").isEnabledFor(logging.ERROR)
    assert len(unreachable) == 1


def test_a_folder_needs_no_network(unreachable, tmp_path):
    for name in (str(tmp_path), f"local-dir:{tmp_path}"):
        with weights.hub(name):
            assert not constants.is_offline_mode()
    assert unreachable == []


def test_behind_a_proxy_names_are_the_proxys_to_know(unreachable, monkeypatch):
    monkeypatch.setattr(weights, "getproxies", lambda: {"https": "proxy:3128"})
    with weights.hub("nobody/nothing"):
        assert not constants.is_offline_mode()
    assert unreachable == []
