//! `km endpoints`: Endpoints and EndpointSlices for Services, in terms of node addresses and granted host ports.
