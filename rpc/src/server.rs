//! The serving side: one connection, and calls with one message each way.

use std::convert::Infallible;

use executor::Fd;
use http::header::AUTHORIZATION;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use prost::Message;
use proto::credentials::Secret;
use tonic::Status;
use tonic::body::Body;
use tonic::server::{Grpc, UnaryService};
use tonic_prost::ProstCodec;

use crate::{Error, Socket, Tasks};

/// A call as it comes in.
pub type Request = http::Request<Incoming>;
/// The answer to a call.
pub type Response = http::Response<Body>;

/// Calls of one connection that may be under way; more wait. A host has a wait for each process
/// that it started, and few other calls.
const MAX_CALLS: u32 = 1024;
/// Bytes of headers of one call. Ours have some two hundred.
const MAX_HEADER_BYTES: u32 = 8 << 10;

/// Serves one connection to its end. `dispatch` answers each call, usually by [`unary`].
pub async fn serve<D, F>(socket: Fd, dispatch: D) -> Result<(), Error>
where
    D: Fn(Request) -> F + 'static,
    F: Future<Output = Response> + 'static,
{
    serve_few(socket, MAX_CALLS, dispatch).await
}

/// The same with so many calls under way: each may take memory for a whole message.
pub async fn serve_few<D, F>(socket: Fd, calls: u32, dispatch: D) -> Result<(), Error>
where
    D: Fn(Request) -> F + 'static,
    F: Future<Output = Response> + 'static,
{
    let service = service_fn(move |request| {
        let response = dispatch(request);
        async { Ok::<_, Infallible>(response.await) }
    });
    http2::Builder::new(Tasks)
        .max_concurrent_streams(calls)
        .max_header_list_size(MAX_HEADER_BYTES)
        .serve_connection(Socket::new(socket), service)
        .await
        .map_err(Error::Connection)
}

/// Reads the one message of a call, has it handled and makes the answer.
///
/// `limit` is the longest message that is read.
pub async fn unary<M, R, F>(
    request: Request,
    limit: usize,
    handler: impl FnOnce(M) -> F,
) -> Response
where
    M: Message + Default + Send + 'static,
    R: Message + Send + 'static,
    F: Future<Output = Result<R, Status>>,
{
    Grpc::new(ProstCodec::<R, M>::default())
        .max_decoding_message_size(limit)
        .unary(Once(Some(handler)), request)
        .await
}

/// Whether a call carries the secret.
pub fn is_authorized(request: &Request, secret: &Secret) -> bool {
    let value = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| secret.authorizes(value))
}

/// The answer to a call that nobody serves.
pub fn unimplemented() -> Response {
    Status::unimplemented("there is no such call").into_http()
}

/// A handler as the service that tonic asks for; it is called once.
struct Once<H>(Option<H>);

impl<M, R, F, H> UnaryService<M> for Once<H>
where
    H: FnOnce(M) -> F,
    F: Future<Output = Result<R, Status>>,
{
    type Response = R;
    type Future = Answer<F>;

    fn call(&mut self, request: tonic::Request<M>) -> Self::Future {
        Answer(self.0.take().map(|handler| Box::pin(handler(request.into_inner()))))
    }
}

/// The handler's future, with its answer in tonic's envelope.
struct Answer<F>(Option<std::pin::Pin<Box<F>>>);

impl<R, F: Future<Output = Result<R, Status>>> Future for Answer<F> {
    type Output = Result<tonic::Response<R>, Status>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        match &mut self.0 {
            Some(handler) => {
                handler.as_mut().poll(context).map(|result| result.map(tonic::Response::new))
            }
            None => std::task::Poll::Ready(Err(Status::internal("a call was handled twice"))),
        }
    }
}
