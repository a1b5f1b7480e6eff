"""The client cases of the Autobahn Testsuite, run against this package: python -m tests.autobahn

The server is the testsuite's own; the client is a program such as a user would write.
"""
