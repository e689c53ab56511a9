"""One DNS client per account, whoever asks for it: so that its zones are listed once."""

from weakref import WeakKeyDictionary

from hasite.clouds.digitalocean import DigitalOcean
from hasite.dns.digitalocean import DigitalOceanDns


class DnsAccounts:
    """DNS clients by the client of their account; they end with it."""

    def __init__(self) -> None:
        self._providers: WeakKeyDictionary[DigitalOcean, DigitalOceanDns] = WeakKeyDictionary()

    def get(self, account: DigitalOcean) -> DigitalOceanDns:
        """The DNS of this account."""
        provider = self._providers.get(account)
        if provider is None:
            provider = self._providers[account] = DigitalOceanDns(account.api)
        return provider
