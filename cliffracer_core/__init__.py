"""Cliffracer's kernel: services as Python classes with typed methods; everything else is a plugin."""

from .client import ClientProxy, client
from .config import ServiceConfig, get_env
from .context import (
    Identity,
    MessageContext,
    create_correlation_id,
    current_context,
    get_correlation_id,
    set_correlation_id,
    with_correlation_id,
)
from .deadletters import redrive
from .errors import (
    AuthenticationError,
    AuthorizationError,
    Cancelled,
    CliffracerError,
    ConfigurationError,
    ConflictError,
    ConnectionError,
    DatabaseError,
    DeadlineExceeded,
    EncodingError,
    InvalidHeader,
    InvalidSubject,
    MessageTooLarge,
    NoHandler,
    NotFoundError,
    NotStored,
    Overloaded,
    PluginError,
    RPCError,
    ServiceError,
    StartupError,
    ValidationError,
)
from .handlers import (
    Controller,
    Declaration,
    ErrorHandler,
    EventPattern,
    Injectable,
    MessagePattern,
    broadcast,
    error_handler,
    event,
    handle_errors,
    inject,
    mark,
    rpc,
    validated_rpc,
)
from .hookspecs import hookimpl, hookspec
from .interfaces import Middleware, Provider, Section, ServiceInfo, Store, Transport
from .plugins import Plugins
from .process import ServiceOrchestrator
from .scatter import ReplicaReply
from .service import CliffracerService
from .validation import injected, validate_email, validate_port, validate_timeout, validate_url

__all__ = [
    "AuthenticationError", "AuthorizationError", "Cancelled", "ClientProxy", "CliffracerError",
    "CliffracerService", "ConfigurationError", "ConflictError", "ConnectionError", "Controller",
    "DatabaseError", "DeadlineExceeded", "Declaration", "EncodingError", "ErrorHandler", "EventPattern",
    "Identity", "Injectable", "InvalidHeader", "InvalidSubject", "MessageContext", "MessagePattern",
    "MessageTooLarge", "Middleware", "NoHandler", "NotFoundError", "NotStored", "Overloaded",
    "PluginError", "Plugins", "Provider", "RPCError", "ReplicaReply", "Section", "ServiceConfig", "ServiceError",
    "ServiceInfo", "ServiceOrchestrator", "StartupError", "Store", "Transport", "ValidationError",
    "broadcast", "client", "create_correlation_id", "current_context", "error_handler", "event",
    "get_correlation_id", "get_env", "handle_errors", "hookimpl", "hookspec", "inject", "injected",
    "mark", "redrive", "rpc", "set_correlation_id", "validate_email", "validate_port",
    "validate_timeout", "validate_url", "validated_rpc", "with_correlation_id",
]  # fmt: skip
