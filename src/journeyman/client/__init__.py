"""What an app installs: connect to a server, roll out agents, gather attempts, train. Never imports torch or the server."""
