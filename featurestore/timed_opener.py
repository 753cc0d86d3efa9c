"""Asks a URL of somebody else's server, which gets so many seconds and no more, however it parcels out what it says."""

from __future__ import annotations

import urllib.request
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection

from featurestore.timed_response import TimedResponse


class _OpenedHTTPConnection(HTTPConnection):
    response_class = TimedResponse


class _OpenedHTTPSConnection(HTTPSConnection):
    response_class = TimedResponse


class _TimedHTTPHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_OpenedHTTPConnection, req)


class _TimedHTTPSHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_OpenedHTTPSConnection, req)


def timed_opener(*handlers: type[urllib.request.BaseHandler]) -> urllib.request.OpenerDirector:
    """An opener of urllib.request whose timeout is the time for connecting, and again that for the whole answer, its body included. By
    itself it is the time between two bytes. handlers: others that it is to have."""
    return urllib.request.build_opener(_TimedHTTPHandler, _TimedHTTPSHandler, *handlers)
